"""The forward process against diffusers."""

import math
from typing import Literal

import pytest
import torch
from pydantic import ValidationError

from phoenix_pipeline.config import NoiseConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule, build_scheduler


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_agrees_with_diffusers(schedule: Literal["linear", "cosine"]) -> None:
    config = NoiseConfig(schedule=schedule, prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(0)
    x_0, epsilon = torch.randn(2, 6, 3, 8, 8, generator=generator)
    t = torch.tensor([0, 1, 250, 500, 998, 999])
    ours, theirs = NoiseSchedule.from_config(config, "cpu"), build_scheduler(config)

    assert ours.num_timesteps == 1000
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(
        ours.diffuse(x_0, t, epsilon), theirs.add_noise(x_0, epsilon, t), **tolerance
    )
    torch.testing.assert_close(
        ours.target(x_0, t, epsilon), theirs.get_velocity(x_0, epsilon, t), **tolerance
    )


def test_epsilon_prediction_targets_the_noise() -> None:
    schedule = NoiseSchedule.from_config(NoiseConfig(prediction_type="epsilon"), "cpu")
    x_0, epsilon = torch.ones(2, 1, 8, 8), torch.full((2, 1, 8, 8), 3.0)
    assert torch.equal(schedule.target(x_0, torch.tensor([0, 999]), epsilon), epsilon)


def test_linear_schedule_has_the_variances_that_were_set() -> None:
    config = NoiseConfig(schedule="linear", num_train_timesteps=2, beta_start=0.1, beta_end=0.5)
    schedule = NoiseSchedule.from_config(config, "cpu")
    torch.testing.assert_close(schedule.signal.square(), torch.tensor([0.9, 0.45]))
    torch.testing.assert_close(schedule.noise.square(), torch.tensor([0.1, 0.55]))


def test_cosine_schedule_is_that_of_nichol_and_dhariwal() -> None:
    # arXiv 2102.09672, equation 17: alpha_bar(t) = f(t) / f(0); its last variances are cut.
    schedule = NoiseSchedule.from_config(NoiseConfig(schedule="cosine"), "cpu")
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
    expected = f / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(
        schedule.signal.double()[:990] ** 2, expected[:990], rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_with_zero_terminal_snr_nothing_of_an_image_is_left_at_the_end(
    schedule: Literal["linear", "cosine"],
) -> None:
    plain = NoiseSchedule.from_config(NoiseConfig(schedule=schedule), "cpu")
    config = NoiseConfig(schedule=schedule, zero_terminal_snr=True)
    rescaled = NoiseSchedule.from_config(config, "cpu")
    assert rescaled.signal[-1] == 0.0 and rescaled.noise[-1] == 1.0
    # arXiv 2305.08891, algorithm 1: sqrt(alpha_bar) is moved and stretched, its first value kept.
    first, last = plain.signal[0].double(), plain.signal[-1].double()
    expected = (plain.signal.double() - last) * first / (first - last)
    torch.testing.assert_close(rescaled.signal.double(), expected, rtol=1e-3, atol=1e-5)
    assert float(rescaled.signal[0]) == pytest.approx(float(first), rel=1e-6)
    # Of noise alone v is -x_0.
    x_0, epsilon = torch.ones(1, 1, 8, 8), torch.full((1, 1, 8, 8), 3.0)
    assert torch.equal(rescaled.diffuse(x_0, torch.tensor([999]), epsilon), epsilon)
    assert torch.equal(rescaled.target(x_0, torch.tensor([999]), epsilon), -x_0)


def test_zero_terminal_snr_is_for_v_prediction() -> None:
    with pytest.raises(ValidationError, match=r"prediction_type v_prediction, but it is epsilon"):
        NoiseConfig(zero_terminal_snr=True, prediction_type="epsilon")


def schedule_of(kind: str) -> NoiseSchedule:
    """Signal-to-noise ratios 16, 4 and 1/4."""
    signal = torch.tensor([16 / 17, 4 / 5, 1 / 5]).sqrt()
    return NoiseSchedule(signal, (1.0 - signal.square()).sqrt(), kind)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # min(SNR, 5) / SNR and min(SNR, 5) / (SNR + 1).
        ("epsilon", [5 / 16, 1.0, 1.0]),
        ("v_prediction", [5 / 17, 4 / 5, 1 / 5]),
    ],
)
def test_min_snr_weights_are_those_of_the_paper(kind: str, expected: list[float]) -> None:
    weights = schedule_of(kind).min_snr_weights(torch.tensor([0, 1, 2]), 5.0)
    torch.testing.assert_close(weights, torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_is_the_clamped_ratio_times_the_error_of_the_image(kind: str) -> None:
    schedule, t = schedule_of(kind), torch.tensor([0, 1, 2])
    generator = torch.Generator().manual_seed(0)
    x_0, epsilon, error = torch.randn(3, 3, 1, 4, 4, generator=generator)
    target, x_t = schedule.target(x_0, t, epsilon), schedule.diffuse(x_0, t, epsilon)
    seen = schedule.predicted_noise(x_t, t, target + error)
    signal, noise = schedule.signal.view(-1, 1, 1, 1), schedule.noise.view(-1, 1, 1, 1)
    of_image = ((x_t - noise * seen) / signal - x_0).square().flatten(1).mean(1)
    expected = torch.tensor([5.0, 4.0, 0.25]) * of_image
    found = schedule.min_snr_weights(t, 5.0) * error.square().flatten(1).mean(1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
