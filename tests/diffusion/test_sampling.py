"""Every sampler gives an image that its seed alone decides."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.sampling import check_sampling, sample_images
from phoenix_pipeline.diffusion.schedulers import prepare_scheduler
from phoenix_pipeline.errors import SettingsError, TrainingError

NewUnet = Callable[..., UNet2DModel]
SAMPLERS = ("ddpm", "ddim", "dpm_solver++", "unipc")
SHAPE = (1, 8, 8)


def settings(**options: Any) -> SamplingConfig:
    return SamplingConfig.model_validate({"num_steps": 5, **options})


def draw(unet: nn.Module, seeds: range, noise: NoiseConfig | None = None, **options: Any) -> Any:
    batches = sample_images(
        unet, noise or NoiseConfig(), settings(**options), SHAPE, seeds, torch.device("cpu")
    )
    return np.concatenate(list(batches))


class KnowsTheImage(nn.Module):
    """Predicts v for data that are always ``image``: the exact posterior mean."""

    def __init__(self, image: Tensor, noise: NoiseConfig) -> None:
        super().__init__()
        self.image, self.schedule = image, NoiseSchedule.from_config(noise, "cpu")

    def forward(self, x_t: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        signal, noise = self.schedule.signal[t], self.schedule.noise[t]
        epsilon = (x_t - signal * self.image) / noise
        return (signal * epsilon - noise * self.image,)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exact_network_gives_back_its_image(sampler: str, schedule: str) -> None:
    noise = NoiseConfig.model_validate({"schedule": schedule})
    pixels = torch.arange(0, 256, 4, dtype=torch.float32).view(SHAPE)
    network = KnowsTheImage(pixels / 127.5 - 1.0, noise)
    drawn = draw(network, range(3), noise, sampler=sampler, num_steps=20)
    assert np.abs(drawn.astype(int) - pixels.int().numpy()).max() <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batch_size_does_not_change_an_image(new_unet: NewUnet, sampler: str) -> None:
    unet, options = new_unet(), {"sampler": sampler, "eta": 1.0}
    small = draw(unet, range(10), batch_size=3, **options)
    large = draw(unet, range(10), batch_size=7, **options)
    assert small.shape == (10, *SHAPE)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(small, large)
    assert not np.array_equal(small[0], small[1])


def test_images_follow_the_order_of_the_seeds(new_unet: NewUnet) -> None:
    unet = new_unet()
    np.testing.assert_array_equal(draw(unet, range(3)), draw(unet, range(2, -1, -1))[::-1])


def test_eta_adds_noise_to_ddim(new_unet: NewUnet) -> None:
    unet = new_unet()
    plain, ancestral = (draw(unet, range(2), sampler="ddim", eta=eta) for eta in (0.0, 1.0))
    assert not np.array_equal(plain, ancestral)


def test_weights_swapped_in_place_are_used(new_unet: NewUnet) -> None:
    unet, other = new_unet(), new_unet(seed=5)
    first = draw(unet, range(2))
    unet.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(draw(unet, range(2)), draw(other, range(2)))
    assert not np.array_equal(first, draw(unet, range(2)))


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_global_generator_are_left_alone(new_unet: NewUnet, training: bool) -> None:
    unet, before = new_unet().train(training), torch.random.get_rng_state()
    for _ in sample_images(unet, NoiseConfig(), settings(), SHAPE, range(1), "cpu"):
        assert not torch.is_inference_mode_enabled()
    assert unet.training is training
    assert torch.equal(before, torch.random.get_rng_state())


def test_more_steps_than_the_forward_process_are_refused_at_once(new_unet: NewUnet) -> None:
    noise = NoiseConfig(num_train_timesteps=10)
    with pytest.raises(SettingsError, match=r"num_steps is 11, .* has 10 steps"):
        check_sampling(settings(num_steps=11), noise)
    with pytest.raises(SettingsError, match="num_steps is 12"):
        sample_images(new_unet(), noise, settings(num_steps=12), SHAPE, range(2), "cpu")


def test_spacing_that_repeats_a_timestep_is_refused() -> None:
    repeats = settings(sampler="dpm_solver++", num_steps=1000, timestep_spacing="leading")
    with pytest.raises(SettingsError, match="timestep_spacing=leading makes"):
        check_sampling(repeats, NoiseConfig())
    check_sampling(settings(sampler="ddpm", num_steps=1000), NoiseConfig())


def test_diverged_network_is_refused(new_unet: NewUnet) -> None:
    unet = new_unet()
    with torch.no_grad():
        unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        draw(unet, range(2))
    assert unet.training


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bf16_moves_pixels_a_little(new_unet: NewUnet, sampler: str) -> None:
    unet = new_unet()
    full, half = (draw(unet, range(4), sampler=sampler, precision=p) for p in ("fp32", "bf16"))
    difference = np.abs(full.astype(int) - half)
    assert 0 < difference.max()
    assert difference.mean() < 3


class CountsCalls(nn.Module):
    """Predicts zero and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x_t: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        self.calls += 1
        assert not self.training
        return (torch.zeros_like(x_t),)


@pytest.mark.parametrize("num_steps", [1, 61, 249, 250, 500, 900])
def test_a_clipped_schedule_still_takes_as_many_steps_as_asked_for(num_steps: int) -> None:
    noise, network = NoiseConfig.model_validate({"schedule": "cosine"}), CountsCalls()
    drawn = draw(network, range(2), noise, sampler="dpm_solver++", num_steps=num_steps)
    assert (network.calls, drawn.shape) == (num_steps, (2, *SHAPE))
    # The last timestep whose log-SNR is above -5.1.
    config = settings(sampler="dpm_solver++")
    assert prepare_scheduler(noise, config, num_steps).timesteps[0] == 995


def test_more_steps_than_a_clipped_schedule_has_are_refused() -> None:
    noise = NoiseConfig.model_validate({"schedule": "cosine"})
    with pytest.raises(
        SettingsError, match=r"num_steps=1000 .* possible are sampling\.num_steps=996$"
    ):
        check_sampling(settings(sampler="dpm_solver++", num_steps=1000), noise)


def test_a_spacing_that_rounds_to_one_step_too_many_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"num_steps=61 with timestep_spacing=trailing"):
        check_sampling(settings(sampler="ddim", num_steps=61), NoiseConfig())


def test_compiled_code_sees_one_size_of_batch(new_unet: NewUnet) -> None:
    unet, sizes = new_unet(), set()
    plain = draw(unet, range(10), batch_size=4)

    def call(x: Tensor, t: Tensor, return_dict: bool) -> tuple[Tensor]:
        sizes.add(len(x))
        output: tuple[Tensor] = unet._call_impl(x, t, return_dict=return_dict)
        return output

    # Where ``unet.compile()`` puts what is called; compiling itself takes 20 seconds.
    unet._compiled_call_impl = call
    assert np.abs(draw(unet, range(10), batch_size=4).astype(int) - plain).max() <= 1
    assert sizes == {4}
