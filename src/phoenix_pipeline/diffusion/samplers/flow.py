"""Euler and Heun: along dx/dt = v(x, t) from noise at t = 1 to an image (arXiv 2209.03003)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from phoenix_pipeline.diffusion.samplers.steps import Sampler


class FlowSteps:
    """Steps between the ``times`` [S + 1] at which the velocity is asked for; the last one is 0.

    A time that comes twice ends a step of Heun: the velocity there corrects the step, and the
    velocity at the corrected place begins the next one. Other steps are Euler's.
    """

    def __init__(self, times: Sequence[float], generators: Sequence[torch.Generator]) -> None:
        self._times = times
        self._start: Tensor | None = None
        self._slope: Tensor | None = None

    def __call__(self, x: Tensor, velocity: Tensor, index: int) -> Tensor:
        """Return x at the next time, float32 [B, C, H, W]; ``x`` may be written over."""
        now, after = self._times[index : index + 2]
        if now == after and self._start is not None and self._slope is not None:
            step = now - self._times[index - 1]
            return self._start.add_(self._slope + velocity, alpha=step / 2)
        if after in self._times[index + 2 : index + 3]:
            # Compiled networks write their next prediction over this one.
            self._start, self._slope = x, velocity.clone()
            return x.add(velocity, alpha=after - now)
        return x.add_(velocity, alpha=after - now)


def _euler_times(evaluations: int) -> list[float]:
    return [1.0 - i / evaluations for i in range(evaluations)]


def _heun_times(evaluations: int) -> list[float]:
    """Return times in equal steps of two evaluations, the last of one (arXiv 2206.00364)."""
    ends = [*_euler_times(evaluations // 2 + 1), 0.0]
    first, last = evaluations % 2 == 0, len(ends) - 2
    times: list[float] = []
    for step, (start, end) in enumerate(pairwise(ends)):
        single = step == last or (first and step == 0)
        times += [start] if single else [start, end]
    return times


EULER = Sampler(
    lambda noise: ("FlowMatchEulerDiscreteScheduler", {}),
    lambda scheduler, config: partial(FlowSteps, scheduler.sigmas.double().tolist()),
    _euler_times,
)
HEUN = replace(EULER, times=_heun_times)
