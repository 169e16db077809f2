"""DPM-Solver++(2M), midpoint (arXiv 2211.01095, algorithm 2), and UniPC (arXiv 2302.04867)."""

import copy
from functools import partial
from itertools import pairwise
from math import log
from typing import Any

from torch import Tensor

from phoenix_pipeline.config import NoiseConfig
from phoenix_pipeline.diffusion.samplers.steps import (
    Sampler,
    Step,
    StepTable,
    clean_coefficients,
)

# The cosine schedule has almost no signal at the last steps; the log-SNR starts here, as the
# authors advise for it. With ``zero_terminal_snr`` the network has learnt these steps.
_COSINE_LAMBDA_MIN = -5.1


def _scheduler(noise: NoiseConfig) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = {"algorithm_type": "dpmsolver++"}
    if noise.schedule == "cosine" and not noise.zero_terminal_snr:
        options["lambda_min_clipped"] = _COSINE_LAMBDA_MIN
    return "DPMSolverMultistepScheduler", options


def _steps(scheduler: Any) -> list[Step]:
    """Return the steps from noise-to-signal ratios; first and last of first order, x_0 as it is."""
    ratios = scheduler.sigmas.double().tolist()
    steps: list[Step] = []
    h_before = None
    for now, after in pairwise(ratios):
        alpha, alpha_after = ((1.0 + ratio**2) ** -0.5 for ratio in (now, after))
        gain = alpha_after * (1.0 - after / now)
        h = log(now / after) if after else None
        ahead = 0.5 * gain * h / h_before if h and h_before else 0.0
        steps.append(
            Step(
                *clean_coefficients(scheduler, alpha, now * alpha),
                x=after * alpha_after / (now * alpha),
                f=0.0,
                x_0=gain + ahead,
                x_0_before=-ahead,
            )
        )
        h_before = h
    return steps


DPM_SOLVER = Sampler(
    _scheduler, lambda scheduler, config: partial(StepTable, _steps(scheduler), None)
)


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
