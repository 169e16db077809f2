"""UniPC (Zhao et al., arXiv 2302.04867) by diffusers' own steps."""

import copy
from typing import Any

from torch import Tensor

from phoenix_pipeline.diffusion.samplers.steps import Sampler


class _SchedulerSteps:
    """diffusers' own steps, whose tables stay on the CPU: nothing waits for a GPU."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def __call__(self, x_t: Tensor, prediction: Tensor, index: int) -> Tensor:
        t = self._scheduler.timesteps[index]
        x: Tensor = self._scheduler.step(prediction, t, x_t, return_dict=False)[0]
        return x


# It keeps earlier predictions: each batch has a scheduler of its own.
UNIPC = Sampler(
    lambda noise: ("UniPCMultistepScheduler", {}),
    lambda scheduler, config: lambda generators: _SchedulerSteps(copy.deepcopy(scheduler)),
)
