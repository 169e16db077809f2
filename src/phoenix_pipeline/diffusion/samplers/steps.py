"""Steps of the reverse process as coefficients, computed once for all batches.

DDPM, DDIM and DPM-Solver++ are linear in what they know, but for the clipping of x_0. diffusers'
schedulers look the coefficients up and multiply them together anew in every step, which takes as
long as a layer of a small network.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.registry import look_up

TakeStep = Callable[[Tensor, Tensor, int], Tensor]
NewSteps = Callable[[Sequence[torch.Generator]], TakeStep]

# Drawn for that many steps at once: each image has a generator of its own, and calls are dear.
_NOISE_STEPS = 16


@dataclass(frozen=True)
class Sampler:
    """One value of ``sampling.sampler``.

    ``scheduler``: diffusers' scheduler of that name and its options beside the noise schedule and
    the spacing. ``new_steps``: from the scheduler, whose timesteps are set, what gives the steps of
    one batch from the CPU generators of its images. The steps are called with x_t, which they may
    write over, the network's prediction (both float32 [B, C, H, W]) and the number of the step,
    and return x_{t-1}. ``times``: of a sampler of flow models, the times from 1 towards 0 at which
    it asks the network, by their number; None: it is for other models.
    """

    scheduler: Callable[[NoiseConfig], tuple[str, dict[str, Any]]]
    new_steps: Callable[[Any, SamplingConfig], NewSteps]
    times: Callable[[int], list[float]] | None = None


@dataclass(frozen=True)
class Step:
    """With f the network's prediction, x_0' that of the step before, z Gaussian noise.

    x_0 = ``clean_x`` x_t + ``clean_f`` f, clipped if asked for; then
    x_{t-1} = ``x`` x_t + ``f`` f + ``x_0`` x_0 + ``x_0_before`` x_0' + ``noise`` z.
    """

    clean_x: float
    clean_f: float
    x: float
    f: float
    x_0: float
    x_0_before: float = 0.0
    noise: float = 0.0


class StepTable:
    """Takes a batch through the steps; holds x_0 of the step before, so one for each batch."""

    def __init__(
        self,
        steps: Sequence[Step],
        clip: float | None,
        generators: Sequence[torch.Generator],
    ) -> None:
        self._steps, self._clip, self._generators = steps, clip, generators
        self._before: Tensor | None = None
        self._noise: Tensor | None = None

    def __call__(self, x_t: Tensor, prediction: Tensor, index: int) -> Tensor:
        """Return x_{t-1} float32 [B, C, H, W], written over ``x_t``, of step number ``index``."""
        step = self._steps[index]
        x_0 = x_t.mul(step.clean_x).add_(prediction, alpha=step.clean_f)
        if self._clip is not None:
            x_0.clamp_(-self._clip, self._clip)
        x_t.mul_(step.x).add_(x_0, alpha=step.x_0)
        if step.f:
            x_t.add_(prediction, alpha=step.f)
        if step.x_0_before and self._before is not None:
            x_t.add_(self._before, alpha=step.x_0_before)
        if step.noise:
            x_t.add_(self._draw(x_t, index), alpha=step.noise)
        self._before = x_0
        return x_t

    def _draw(self, x_t: Tensor, index: int) -> Tensor:
        """Return standard Gaussian noise like ``x_t``, image i's from its own CPU generator."""
        place = index % _NOISE_STEPS
        if place == 0 or self._noise is None:
            noise = torch.empty(len(x_t), _NOISE_STEPS, *x_t.shape[1:])
            for own, generator in zip(noise, self._generators, strict=True):
                own.normal_(generator=generator)
            self._noise = noise.to(x_t.device)
        return self._noise[:, place]


def clip_of(scheduler: Any) -> float | None:
    """Return the bound of x_0, or None where it has none."""
    return scheduler.config.clip_sample_range if scheduler.config.clip_sample else None


def clean_coefficients(scheduler: Any, signal: float, noise: float) -> tuple[float, float]:
    """Return the coefficients of x_0 in x_t = ``signal`` x_0 + ``noise`` epsilon and f."""
    return look_up(_CLEAN, scheduler.config.prediction_type, _SETTING)(signal, noise)


def noise_coefficients(scheduler: Any, signal: float, noise: float) -> tuple[float, float]:
    """Return the coefficients of epsilon in x_t and the prediction f; as above."""
    return look_up(_NOISE, scheduler.config.prediction_type, _SETTING)(signal, noise)


_SETTING = "model.noise.prediction_type"
_CLEAN: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "epsilon": lambda signal, noise: (1.0 / signal, -noise / signal),
    "v_prediction": lambda signal, noise: (signal, -noise),
}
_NOISE: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "epsilon": lambda signal, noise: (0.0, 1.0),
    "v_prediction": lambda signal, noise: (noise, signal),
}


def alpha_bars(scheduler: Any, last: float) -> Iterator[tuple[float, float]]:
    """Yield the cumulative alpha of each timestep and of the one visited next, at the end ``last``.

    The next one counts, not the one that lies T / steps below: where the number of steps does not
    divide T, the two differ and the network would see more noise, or less, than it is told.
    """
    table = scheduler.alphas_cumprod
    visited = [float(table[t]) for t in scheduler.timesteps.tolist()]
    return pairwise([*visited, last])
