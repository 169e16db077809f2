"""A tiny federation: two clients, a U-Net of one level, a few steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from phoenix_pipeline.config import (
    FederationConfig,
    LocalWorkConfig,
    ModelConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.compression.codecs import Codec
from phoenix_pipeline.federated.compression.updates import plan_message
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.own_models import OwnModels
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.server import train_federated
from phoenix_pipeline.federated.wire import Layout
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed

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
    own = OwnModels(options.pop("base", None), options.pop("autoencoder", None))
    work = LocalWorkConfig(unit="steps", amount=2)
    # One client after another: what others are held against bit for bit. One thread, as images
    # of this side have by themselves.
    one = {"stacked_clients": 1, "threads_per_client": 1}
    plain = {"num_rounds": rounds, "local_work": work, **one}
    config = FederationConfig(**{**plain, **options})
    defaults = {
        "images": make_images(),
        "client_images": client_table(),
        "config": config,
        "settings": settings(),
        "device": "cpu",
        "own": own,
    }
    given = {**defaults, **given}
    config = given["config"]
    both = {"compression": config.compression, "strategies": config.strategies}
    told = given["settings"].model_copy(update=both)
    return FederatedJob(**{**given, "settings": told})


def train_alone(told: ClientSettings, rows: np.ndarray, work: LocalWork) -> dict[str, torch.Tensor]:
    """Return the weights after ``work`` on the images ``rows``, without any federation."""
    unet = build_unet(UNET, 1, 8, told.seed)
    pixels = torch.from_numpy(make_images().images[rows])
    schedule = NoiseSchedule.from_config(told.model.noise, "cpu")
    train_locally(unet, pixels, work, schedule, told.training)
    return unet.state_dict()


def train_each_alone(told: ClientSettings) -> list[dict[str, torch.Tensor]]:
    """Return each client's weights as it sends them in a run of one round."""
    return [
        train_alone(
            told,
            rows["image_index"].to_numpy(),
            LocalWork(2, 0.0, 1.0, derive_seed(told.seed, "local_training", client, 1)),
        )
        for client, rows in client_table().groupby("client_id")
    ]


def federate(folder: Path, *, on_round: Any = None, **options: Any) -> FederatedResult:
    return train_federated(job(**options), folder, on_round)


def interrupt(folder: Path, *, after: int, **options: Any) -> None:
    """Run as :func:`federate` does, up to the checkpoint of round ``after``."""

    def stop(server_round: int, means: object) -> None:
        if server_round == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(folder, on_round=stop, **options)


def cut_and_resume(
    folder: Path, *, after: int, **options: Any
) -> tuple[FederatedResult, FederatedResult]:
    """Return a run in one go and the same one cut after round ``after``, which end alike."""
    whole = federate(folder / "whole", **options)
    interrupt(folder / "cut", after=after, **options)
    resumed = federate(folder / "cut", **options)
    assert same(whole.raw, resumed.raw)
    assert same(whole.ema, resumed.ema)
    return whole, resumed


def assert_stacking_changes_rounding_alone(one: FederatedResult, stacked: FederatedResult) -> None:
    assert not same(one.raw, stacked.raw), "the clients were not stacked"
    for name, expected in one.raw.items():
        torch.testing.assert_close(stacked.raw[name], expected, rtol=1e-2, atol=1e-4)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def message_bytes(template: Mapping[str, torch.Tensor], codec: Codec | None) -> int:
    """Return the bytes of a message like ``template``, before any deflating."""
    lengths = plan_message(Layout.of(template), codec).lengths
    return sum(length * dtype.itemsize for length, dtype in lengths.values())


def arrays_of(state: ClientState) -> dict[str, torch.Tensor]:
    """Return all that a client keeps, as one mapping."""
    return {f"{group}/{n}": t for group, own in state.groups().items() for n, t in own.items()}
