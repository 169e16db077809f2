import numpy as np
import pytest
import torch
from torch import nn

from phoenix_pipeline.config import ModelConfig, NoiseConfig, UNetConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.privacy.inversion import (
    KnownStep,
    client_gradient,
    likeness,
    reconstruct,
)

SCHEDULE = NoiseSchedule.from_config(NoiseConfig(num_train_timesteps=100), "cpu")


def sent(network: nn.Module) -> list[nn.Parameter]:
    return list(network.parameters())


def noise(seed: int) -> torch.Tensor:
    return torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


def known(step: int, seed: int) -> KnownStep:
    return KnownStep(SCHEDULE, torch.tensor([step]), noise(seed))


def test_an_image_is_read_out_of_the_gradient_of_one_step(
    untrained: nn.Module, digits: tuple[ImageSet, ImageSet]
) -> None:
    image = torch.from_numpy(digits[0].images[:1])
    mean = torch.from_numpy(digits[0].images.mean(0, keepdims=True).astype(np.uint8))
    shared = sent(untrained)
    gradient = client_gradient(untrained, shared, image, known(20, 0))
    made = reconstruct(
        untrained, shared, gradient, known(20, 0), 60, torch.Generator().manual_seed(1)
    )
    assert likeness(made, image).psnr_db > likeness(mean, image).psnr_db + 5
    assert likeness(made, image).ssim > 0.9


def test_the_gradient_is_that_of_the_training_loss(
    model: ModelConfig, untrained: nn.Module
) -> None:
    image = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8)
    gradient = client_gradient(untrained, sent(untrained), image, known(30, 2))
    x_0, t = image.float() / 127.5 - 1, torch.tensor([30])
    predicted = untrained(SCHEDULE.diffuse(x_0, t, noise(2)), t, return_dict=False)[0]
    untrained.zero_grad()
    (predicted - SCHEDULE.target(x_0, t, noise(2))).square().mean().backward()
    for own, parameter in zip(gradient, untrained.parameters(), strict=True):
        torch.testing.assert_close(own, parameter.grad)
    untrained.zero_grad()


def test_what_is_not_sent_cannot_be_read(
    untrained: nn.Module, digits: tuple[ImageSet, ImageSet]
) -> None:
    image = torch.from_numpy(digits[0].images[:1])
    # The bias of the last layer: one number, whatever the image.
    shared = [dict(untrained.named_parameters())["conv_out.bias"]]
    gradient = client_gradient(untrained, shared, image, known(20, 0))
    assert [g.shape for g in gradient] == [(1,)]
    made = reconstruct(
        untrained, shared, gradient, known(20, 0), 20, torch.Generator().manual_seed(1)
    )
    assert likeness(made, image).psnr_db < 12


def test_attention_can_be_inverted_through() -> None:
    config = UNetConfig(
        block_out_channels=(8,), attention_resolutions=(8,), norm_num_groups=4, attention_head_dim=4
    )
    network = build_unet(config, 1, 8, 0).eval()
    image = torch.zeros((1, 1, 8, 8), dtype=torch.uint8)
    shared = sent(network)
    gradient = client_gradient(network, shared, image, known(20, 0))
    made = reconstruct(network, shared, gradient, known(20, 0), 2, torch.Generator().manual_seed(1))
    assert made.shape == image.shape
    assert made.dtype == torch.uint8


def test_known_likeness() -> None:
    image = torch.randint(0, 200, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    image = image.to(torch.uint8)
    same = likeness(image, image)
    assert (same.psnr_db, same.ssim) == (100.0, pytest.approx(1.0))
    # 20 log10(255 / 10)
    assert likeness(image + 10, image).psnr_db == pytest.approx(28.1308, abs=1e-3)
    assert likeness(255 - image, image).ssim < 0
