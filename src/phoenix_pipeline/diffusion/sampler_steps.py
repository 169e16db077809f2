"""The steps of DDPM, DDIM and DPM-Solver++ as coefficients, read from diffusers' schedulers.

Each of them is linear in what it knows, but for the clipping of x_0. The schedulers look the
coefficients up and multiply them together anew in every step, which takes as long as a layer of a
small network; here that is done once.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import log, sqrt
from typing import Any

import torch
from torch import Tensor

from phoenix_pipeline.config import SamplingConfig

TakeStep = Callable[[Tensor, Tensor, int], Tensor]

# Drawn for that many steps at once: each image has a generator of its own, and calls are dear.
_NOISE_STEPS = 16


@dataclass(frozen=True)
class _Step:
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


def sampler_steps(
    scheduler: Any, config: SamplingConfig
) -> Callable[[Sequence[torch.Generator]], TakeStep]:
    """Return what gives the steps of one batch, from the CPU generators of its images.

    The steps are called with x_t, which they may write over, the network's prediction (both
    float32 [B, C, H, W]) and the number of the step, and return x_{t-1}.
    """
    if config.sampler == "unipc":
        # It keeps earlier predictions: each batch has a scheduler of its own.
        return lambda generators: _SchedulerSteps(copy.deepcopy(scheduler))
    if config.sampler == "dpm_solver++":
        return partial(_StepTable, _dpm_solver_steps(scheduler), None)
    ddim = config.sampler == "ddim"
    steps = _ddim_steps(scheduler, config.eta) if ddim else _ddpm_steps(scheduler)
    return partial(_StepTable, steps, scheduler.config.clip_sample_range)


class _StepTable:
    """Takes a batch through the steps; holds x_0 of the step before, so one for each batch."""

    def __init__(
        self,
        steps: Sequence[_Step],
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


class _SchedulerSteps:
    """diffusers' own steps, whose tables stay on the CPU: nothing waits for a GPU."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def __call__(self, x_t: Tensor, prediction: Tensor, index: int) -> Tensor:
        t = self._scheduler.timesteps[index]
        x: Tensor = self._scheduler.step(prediction, t, x_t, return_dict=False)[0]
        return x


def _ddim_steps(scheduler: Any, eta: float) -> list[_Step]:
    """Return the steps of a ``DDIMScheduler``; Song et al., arXiv 2010.02502, equations 12, 16."""
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    steps = []
    for t in scheduler.timesteps.tolist():
        alpha_bar, before = _alpha_bars(scheduler, t, t - stride, scheduler.final_alpha_cumprod)
        variance = eta**2 * (1.0 - before) / (1.0 - alpha_bar) * (1.0 - alpha_bar / before)
        direction = sqrt(max(0.0, 1.0 - before - variance))
        # Equation 12 uses the predicted noise as it was before x_0 was clipped.
        epsilon_x, epsilon_f = 0.0, 1.0
        if scheduler.config.prediction_type == "v_prediction":
            epsilon_x, epsilon_f = sqrt(1.0 - alpha_bar), sqrt(alpha_bar)
        steps.append(
            _Step(
                *_clean(scheduler, sqrt(alpha_bar), sqrt(1.0 - alpha_bar)),
                x=direction * epsilon_x,
                f=direction * epsilon_f,
                x_0=sqrt(before),
                noise=sqrt(max(0.0, variance)),
            )
        )
    return steps


def _ddpm_steps(scheduler: Any) -> list[_Step]:
    """Return the steps of a ``DDPMScheduler``; Ho et al., arXiv 2006.11239, equation 7."""
    steps = []
    for t in scheduler.timesteps.tolist():
        previous = int(scheduler.previous_timestep(t))
        alpha_bar, before = _alpha_bars(scheduler, t, previous, 1.0)
        alpha = alpha_bar / before
        variance = (1.0 - before) / (1.0 - alpha_bar) * (1.0 - alpha)
        steps.append(
            _Step(
                *_clean(scheduler, sqrt(alpha_bar), sqrt(1.0 - alpha_bar)),
                x=sqrt(alpha) * (1.0 - before) / (1.0 - alpha_bar),
                f=0.0,
                x_0=sqrt(before) * (1.0 - alpha) / (1.0 - alpha_bar),
                noise=sqrt(max(0.0, variance)),
            )
        )
    return steps


def _dpm_solver_steps(scheduler: Any) -> list[_Step]:
    """Return the steps of a ``DPMSolverMultistepScheduler``: DPM-Solver++(2M), midpoint.

    Lu et al., arXiv 2211.01095, algorithm 2. The first and the last step, to noise 0, are of first
    order. Its x_0 is not clipped. A log-SNR lambda is -log(sigma / alpha) here.
    """
    ratios = scheduler.sigmas.double().tolist()
    steps: list[_Step] = []
    h_before = None
    for now, after in pairwise(ratios):
        alpha, alpha_after = ((1.0 + ratio**2) ** -0.5 for ratio in (now, after))
        gain = alpha_after * (1.0 - after / now)
        h = log(now / after) if after else None
        ahead = 0.5 * gain * h / h_before if h and h_before else 0.0
        steps.append(
            _Step(
                *_clean(scheduler, alpha, now * alpha),
                x=after * alpha_after / (now * alpha),
                f=0.0,
                x_0=gain + ahead,
                x_0_before=-ahead,
            )
        )
        h_before = h
    return steps


def _clean(scheduler: Any, signal: float, noise: float) -> tuple[float, float]:
    """Return the coefficients of x_t = ``signal`` x_0 + ``noise`` epsilon solved for x_0."""
    if scheduler.config.prediction_type == "v_prediction":
        return signal, -noise
    return 1.0 / signal, -noise / signal


def _alpha_bars(scheduler: Any, t: int, previous: int, last: Any) -> tuple[float, float]:
    """Return the cumulative alphas at ``t`` and at the ``previous`` step, ``last`` if below 0."""
    table = scheduler.alphas_cumprod
    return float(table[t]), float(table[previous] if previous >= 0 else last)
