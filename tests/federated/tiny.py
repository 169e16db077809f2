"""A tiny federation: two clients, a U-Net of one level, a few steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from phoenix_pipeline.config import (
    FederationConfig,
    LocalWorkConfig,
    ModelConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.server import train_federated
from phoenix_pipeline.images import ImageSet

UNET = UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
SIZES = (12, 36)


def make_images(count: int = sum(SIZES)) -> ImageSet:
    pixels = np.random.default_rng(3).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return ImageSet(pixels)


def client_table(sizes: tuple[int, ...] = SIZES) -> pd.DataFrame:
    clients = np.repeat(np.arange(len(sizes)), sizes)
    return pd.DataFrame({"client_id": clients, "image_index": np.arange(sum(sizes))})


def settings(personal_layers: tuple[str, ...] = (), **training: Any) -> ClientSettings:
    defaults = {"batch_size": 6, "ema_horizon": 0.5, "optimizer_state": "reset"}
    return ClientSettings(
        model=ModelConfig(unet=UNET),
        training=TrainingConfig(**{**defaults, **training}),
        channels=1,
        image_size=8,
        seed=5,
        personal_layers=personal_layers,
    )


def job(*, rounds: int = 2, **options: Any) -> FederatedJob:
    """Return a job; options are those of the job first, then of the federation."""
    given = {k: options.pop(k) for k in list(options) if k in FederatedJob.__dataclass_fields__}
    work = LocalWorkConfig(unit="steps", amount=2)
    config = FederationConfig(**{"num_rounds": rounds, "local_work": work, **options})
    defaults = {
        "images": make_images(),
        "client_images": client_table(),
        "config": config,
        "settings": settings(),
        "device": "cpu",
    }
    return FederatedJob(**{**defaults, **given})


def federate(folder: Path, *, on_round: Any = None, **options: Any) -> FederatedResult:
    return train_federated(job(**options), folder, on_round)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
