"""Tiny networks and images, so that the whole folder runs in seconds on one core."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import DcganConfig
from phoenix_pipeline.gan.dcgan import Dcgan, build_dcgan

TINY = DcganConfig(latent_dim=5, base_channels=4, layers_per_resolution=1)


@pytest.fixture
def tiny_config() -> DcganConfig:
    return TINY


@pytest.fixture
def new_gan() -> Callable[..., Dcgan]:
    return lambda seed=0, channels=1, image_size=8: build_dcgan(TINY, channels, image_size, seed)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (12, 1, 8, 8), generator=generator, dtype=torch.uint8)
