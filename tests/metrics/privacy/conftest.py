"""Tiny U-Nets: one that knows 16 digits by heart, and one that has seen nothing."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from phoenix_pipeline.config import ModelConfig, NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

MODEL = ModelConfig(
    unet=UNetConfig(block_out_channels=(24,), attention_resolutions=(), norm_num_groups=8),
    noise=NoiseConfig(num_train_timesteps=100),
)
MEMORISED = 16


@pytest.fixture(scope="session")
def model() -> ModelConfig:
    return MODEL


@pytest.fixture(scope="session")
def untrained() -> nn.Module:
    return DiffusionFamily().build(MODEL, 1, 8, seed=0)


@pytest.fixture(scope="session")
def memorised(digits: tuple[ImageSet, ImageSet]) -> tuple[np.ndarray, nn.Module]:
    """The 16 images and the network that was trained on nothing else."""
    images = digits[0].images[:MEMORISED]
    return images, memorise(images, seed=0)


def memorise(images: np.ndarray, seed: int, steps: int = 250) -> nn.Module:
    """Return a network that was trained for ``steps`` on ``images`` and nothing else."""
    network = DiffusionFamily().build(MODEL, 1, 8, seed=seed)
    work = LocalWork(steps=steps, progress_start=0.0, progress_end=1.0, seed=seed + 1)
    training = TrainingConfig(batch_size=MEMORISED, learning_rate=5e-3)
    DiffusionFamily().train_locally(
        network, ClientTask(torch.from_numpy(images), work), MODEL, training
    )
    return network


@pytest.fixture(scope="session")
def train_by_heart() -> Callable[..., nn.Module]:
    return memorise
