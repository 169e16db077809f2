"""The ancestral sampler of Ho et al., arXiv 2006.11239."""

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
)


def _steps(scheduler: Any) -> list[Step]:
    steps = []
    for alpha_bar, before in alpha_bars(scheduler, last=1.0):
        alpha = alpha_bar / before
        variance = (1.0 - before) / (1.0 - alpha_bar) * (1.0 - alpha)
        steps.append(
            Step(
                *clean_coefficients(scheduler, sqrt(alpha_bar), sqrt(1.0 - alpha_bar)),
                x=sqrt(alpha) * (1.0 - before) / (1.0 - alpha_bar),
                f=0.0,
                x_0=sqrt(before) * (1.0 - alpha) / (1.0 - alpha_bar),
                noise=sqrt(max(0.0, variance)),
            )
        )
    return steps


DDPM = Sampler(
    lambda noise: ("DDPMScheduler", {}),
    lambda scheduler, config: partial(StepTable, _steps(scheduler), clip_of(scheduler)),
)
