"""DDIM: Song et al., arXiv 2010.02502."""

from functools import partial
from math import sqrt
from typing import Any

from phoenix_pipeline.diffusion.samplers.steps import (
    Sampler,
    Step,
    StepTable,
    alpha_bars,
    clean_coefficients,
    clip_of,
    noise_coefficients,
)


def _steps(scheduler: Any, eta: float) -> list[Step]:
    """Return the steps of equations 12 and 16, each to the timestep that is visited next.

    diffusers' ``DDIMScheduler.step`` goes to t - T // steps, which is another timestep where the
    number of steps does not divide T, and with spacing "linspace"; there we part from it.
    """
    steps = []
    for alpha_bar, before in alpha_bars(scheduler, last=float(scheduler.final_alpha_cumprod)):
        variance = eta**2 * (1.0 - before) / (1.0 - alpha_bar) * (1.0 - alpha_bar / before)
        direction = sqrt(max(0.0, 1.0 - before - variance))
        ratios = sqrt(alpha_bar), sqrt(1.0 - alpha_bar)
        # Equation 12 uses the predicted noise as it was before x_0 was clipped.
        epsilon_x, epsilon_f = noise_coefficients(scheduler, *ratios)
        steps.append(
            Step(
                *clean_coefficients(scheduler, *ratios),
                x=direction * epsilon_x,
                f=direction * epsilon_f,
                x_0=sqrt(before),
                noise=sqrt(max(0.0, variance)),
            )
        )
    return steps


DDIM = Sampler(
    lambda noise: ("DDIMScheduler", {}),
    lambda scheduler, config: partial(StepTable, _steps(scheduler, config.eta), clip_of(scheduler)),
)
