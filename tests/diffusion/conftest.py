"""Tiny networks and images, so that the whole folder runs in seconds on one core."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from phoenix_pipeline.config import UNetConfig
from phoenix_pipeline.diffusion.unet import build_unet

TINY = UNetConfig(
    block_out_channels=(8, 16), attention_resolutions=(4,), attention_head_dim=8, norm_num_groups=4
)


@pytest.fixture
def tiny_config() -> UNetConfig:
    return TINY


@pytest.fixture
def new_unet() -> Callable[..., UNet2DModel]:
    return lambda seed=0, channels=1: build_unet(TINY, channels, 8, seed)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (12, 1, 8, 8), generator=generator, dtype=torch.uint8)
