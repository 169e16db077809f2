"""Samplers against a closed form, and against the steps of diffusers where the two agree."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.samplers import SAMPLERS
from phoenix_pipeline.diffusion.schedulers import build_sampler, prepare_scheduler, set_timesteps
from phoenix_pipeline.errors import SettingsError

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
    take_step, path = SAMPLERS[config.sampler].new_steps(scheduler, config)(generators()), []
    for index, prediction in enumerate(f):
        x_t = take_step(x_t, prediction, index)
        path.append(x_t.clone())
    return torch.stack(path)


def furthest_apart(
    sampler: str, eta: float, schedule: str, prediction_type: str, spacing: str, num_steps: int
) -> float:
    """Return the largest difference between the two paths, relative to the values of a step."""
    noise = NoiseConfig.model_validate({"schedule": schedule, "prediction_type": prediction_type})
    config = SamplingConfig.model_validate(
        {"sampler": sampler, "eta": eta, "timestep_spacing": spacing}
    )
    # Few steps with spacing "leading" are refused for drawing images; their arithmetic is not.
    scheduler = build_sampler(noise, config)
    set_timesteps(scheduler, num_steps)
    options: dict[str, Any] = {} if sampler == "dpm_solver++" else {"generator": generators()}
    if sampler == "ddim":
        options["eta"] = eta
    f = predictions(num_steps)
    found, expected = ours(scheduler, config, f), theirs(scheduler, f, options)
    scale = expected.abs().amax(dim=(1, 2, 3, 4)).clamp(min=1.0)
    return float(((found - expected).abs().amax(dim=(1, 2, 3, 4)) / scale).max())


# diffusers' DDIM goes to other timesteps than it visits with "linspace"; see the test below.
BOTH_AGREE = [
    (sampler, eta, spacing)
    for sampler, eta in [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.7), ("dpm_solver++", 0.0)]
    for spacing in ["leading", "trailing", "linspace"]
    if (sampler, spacing) != ("ddim", "linspace")
]


@pytest.mark.parametrize(("sampler", "eta", "spacing"), BOTH_AGREE)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_paths_are_those_of_diffusers(
    sampler: str, eta: float, schedule: str, prediction_type: str, spacing: str, num_steps: int
) -> None:
    apart = furthest_apart(sampler, eta, schedule, prediction_type, spacing, num_steps)
    assert apart < 1e-5


@pytest.mark.parametrize(("spacing", "num_steps"), [("linspace", 20), ("trailing", 300)])
def test_ddim_parts_from_diffusers_where_the_next_timestep_is_not_a_stride_away(
    spacing: str, num_steps: int
) -> None:
    # Should this fail one day, then diffusers was mended and BOTH_AGREE can grow.
    assert furthest_apart("ddim", 0.0, "cosine", "v_prediction", spacing, num_steps) > 1e-3


MEAN, STD = 0.3, 0.1


def gaussian_drawn(num_steps: int, **options: Any) -> tuple[float, float]:
    """Return mean and deviation, as shares of the true ones, of samples of a Gaussian's pixels.

    The network is exact: E[x_0 | x_t] of N(MEAN, STD^2) is linear in x_t, so what is wrong in the
    samples comes from the sampler.
    """
    kind = {
        name: options.pop(name) for name in ("schedule", "zero_terminal_snr") if name in options
    }
    noise = NoiseConfig.model_validate(kind)
    config = SamplingConfig.model_validate(options)
    scheduler = prepare_scheduler(noise, config, num_steps)
    take_step = SAMPLERS[config.sampler].new_steps(scheduler, config)(generators()[:1])
    # Without noise of its own a sampler is linear in x_T here: few pixels tell all.
    pixels = 20_000 if config.sampler == "ddpm" or config.eta else 100
    x_t = torch.randn(1, 1, 1, pixels, generator=torch.Generator().manual_seed(1))
    x_t = (x_t - x_t.mean()) / x_t.std()
    for index, t in enumerate(scheduler.timesteps.tolist()):
        alpha_bar = float(scheduler.alphas_cumprod[t].double())
        a, b = math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar)
        gain = a * STD**2 / (a**2 * STD**2 + b**2)
        x_0 = MEAN + gain * (x_t.double() - a * MEAN)
        epsilon = (x_t.double() - a * x_0) / b
        x_t = take_step(x_t, (a * epsilon - b * x_0).float(), index)
    return float(x_t.mean()) / MEAN, float(x_t.std()) / STD


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("sampler", "eta"),
    [("ddim", 0.0), ("ddim", 1.0), ("ddpm", 0.0), ("dpm_solver++", 0.0), ("unipc", 0.0)],
)
@pytest.mark.parametrize("num_steps", [128, 300, 400, 600])
def test_a_gaussian_comes_back_whatever_the_number_of_steps(
    sampler: str, eta: float, schedule: str, spacing: str, num_steps: int
) -> None:
    mean, std = gaussian_drawn(
        num_steps, sampler=sampler, eta=eta, schedule=schedule, timestep_spacing=spacing
    )
    assert mean == pytest.approx(1.0, abs=0.01)
    # Finite steps take a little off the deviation, and more of them less; none adds to it.
    least = {128: 0.81, 300: 0.88, 400: 0.91, 600: 0.93}[num_steps]
    assert least < std < 1.02


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver++", "unipc"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_gaussian_comes_back_from_noise_without_any_signal(sampler: str, schedule: str) -> None:
    options = {"sampler": sampler, "schedule": schedule, "zero_terminal_snr": True}
    mean, std = gaussian_drawn(200, **options)
    assert mean == pytest.approx(1.0, abs=0.01)
    assert 0.8 < std < 1.02


def test_a_spacing_that_leaves_the_last_timestep_out_is_refused_with_zero_terminal_snr() -> None:
    config, noise = SamplingConfig(timestep_spacing="leading"), NoiseConfig(zero_terminal_snr=True)
    with pytest.raises(
        SettingsError, match=r"start at timestep 9\d\d, .*timestep_spacing=trailing"
    ):
        prepare_scheduler(noise, config, 20)


@pytest.mark.parametrize(
    ("num_steps", "expected"), [(128, 0.94), (300, 0.97), (400, 0.98), (600, 0.985)]
)
def test_ddim_goes_to_the_timestep_that_is_visited_next(num_steps: int, expected: float) -> None:
    mean, std = gaussian_drawn(num_steps, sampler="ddim", timestep_spacing="trailing")
    assert mean == pytest.approx(1.0, abs=0.002)
    assert std == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver++", "unipc"])
@pytest.mark.parametrize("num_steps", [1, 2, 600])
def test_leading_that_starts_where_images_still_show_is_refused(
    sampler: str, num_steps: int
) -> None:
    config = SamplingConfig.model_validate({"sampler": sampler, "timestep_spacing": "leading"})
    with pytest.raises(SettingsError, match=r"an image still show; possible are") as caught:
        prepare_scheduler(NoiseConfig(), config, num_steps)
    for advice in str(caught.value).split("possible are ")[1].split(" or "):
        setting, _, value = advice.partition("=")
        if setting == "sampling.num_steps":
            prepare_scheduler(NoiseConfig(), config, int(value))
        else:
            assert setting == "sampling.timestep_spacing"
            other = config.model_copy(update={"timestep_spacing": value})
            prepare_scheduler(NoiseConfig(), other, num_steps)


@pytest.mark.parametrize(
    ("sampler", "num_steps"),
    [*(("ddim", n) for n in (20, 50, 100, 500, 999, 1000)), ("dpm_solver++", 20), ("unipc", 30)],
)
def test_leading_that_starts_at_noise_is_possible(sampler: str, num_steps: int) -> None:
    mean, std = gaussian_drawn(num_steps, sampler=sampler, timestep_spacing="leading")
    assert mean == pytest.approx(1.0, abs=0.01)
    assert 0.7 < std < 1.02


def test_a_short_linear_schedule_that_never_reaches_noise_starts_at_its_end() -> None:
    noise = NoiseConfig(schedule="linear", num_train_timesteps=100)
    assert prepare_scheduler(noise, SamplingConfig(), 10).timesteps[0] == 99


def test_an_unknown_sampler_is_refused() -> None:
    config = SamplingConfig().model_copy(update={"sampler": "edm"})
    with pytest.raises(SettingsError, match=r"'edm'; allowed are ddpm, ddim, dpm_solver\+\+, uni"):
        prepare_scheduler(NoiseConfig(), config, 20)
