"""The tables of coefficients against the steps of diffusers' schedulers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.sampler_steps import sampler_steps
from phoenix_pipeline.diffusion.schedulers import prepare_scheduler

SHAPE = (2, 1, 4, 4)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(SHAPE[0])]


def predictions(steps: int) -> Tensor:
    """Return predictions large enough that x_0 is clipped at some pixels and not at others."""
    return torch.randn(steps, *SHAPE, generator=torch.Generator().manual_seed(7))


def theirs(scheduler: Any, f: Tensor, options: dict[str, Any]) -> Tensor:
    x_t = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    path = []
    for t, prediction in zip(scheduler.timesteps, f, strict=True):
        x_t = scheduler.step(prediction, t, x_t, return_dict=False, **options)[0]
        path.append(x_t)
    return torch.stack(path)


def ours(scheduler: Any, config: SamplingConfig, f: Tensor) -> Tensor:
    x_t = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    take_step, path = sampler_steps(scheduler, config)(generators()), []
    for index, prediction in enumerate(f):
        x_t = take_step(x_t, prediction, index)
        path.append(x_t.clone())
    return torch.stack(path)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(
    ("sampler", "eta"), [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.7), ("dpm_solver++", 0.0)]
)
@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_paths_are_those_of_diffusers(
    sampler: str, eta: float, schedule: str, prediction_type: str, spacing: str, num_steps: int
) -> None:
    noise = NoiseConfig.model_validate({"schedule": schedule, "prediction_type": prediction_type})
    config = SamplingConfig.model_validate(
        {"sampler": sampler, "eta": eta, "timestep_spacing": spacing}
    )
    scheduler = prepare_scheduler(noise, config, num_steps)
    options: dict[str, Any] = {} if sampler == "dpm_solver++" else {"generator": generators()}
    if sampler == "ddim":
        options["eta"] = eta
    f = predictions(num_steps)
    found, expected = ours(scheduler, config, f), theirs(scheduler, f, options)
    scale = expected.abs().amax(dim=(1, 2, 3, 4)).clamp(min=1.0)
    assert ((found - expected).abs().amax(dim=(1, 2, 3, 4)) / scale).max() < 1e-5
