"""Tiny U-Nets: one that knows 16 digits by heart, and one that has seen nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from phoenix_pipeline.config import ModelConfig, NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.diffusion import family
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.work import LocalWork

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
    return family.build(MODEL, 1, 8, seed=0)


@pytest.fixture(scope="session")
def memorised(digits: tuple[ImageSet, ImageSet]) -> tuple[np.ndarray, nn.Module]:
    """The 16 images and the network that was trained on nothing else."""
    images = digits[0].images[:MEMORISED]
    network = family.build(MODEL, 1, 8, seed=0)
    work = LocalWork(steps=250, progress_start=0.0, progress_end=1.0, seed=1)
    training = TrainingConfig(batch_size=MEMORISED, learning_rate=5e-3)
    family.train_locally(network, torch.from_numpy(images), work, MODEL, training)
    return images, network
