"""A whole federated round against one program that trains on one batch of the same images."""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Options, timed
from benchmarks.presets import Preset
from benchmarks.stacked_clients import CLIENTS, with_batch
from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.server import train_federated
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.compilation import compile_network
from phoenix_pipeline.optimization.work import LocalWork

_ROUNDS = 3
_IMAGES_PER_CLIENT = 100


def prepare_round(preset: Preset, device: str, folder: Path) -> Callable[[], float]:
    """Return what measures the speed of a round over that of the batch program: as fast is 1.

    A round is everything from one checkpoint to the next: messages, moments, averaging. A run made
    here compiles, and the first round of the measured one, which builds the network, is not
    counted. ``folder`` is for checkpoints.
    """
    batch = _batch_program(preset, device)
    batch()
    train_federated(_job(preset, device, 1), folder / "first")
    return partial(_measure_round, preset, device, folder / "timed", batch)


def _measure_round(preset: Preset, device: str, folder: Path, batch: Callable[[], object]) -> float:
    ends: list[float] = []
    job = _job(preset, device, _ROUNDS)
    train_federated(job, folder, lambda number, means: ends.append(time.perf_counter()))
    seconds = min(timed(batch, Options(device=device)) for _ in range(2))
    return seconds / min(after - before for before, after in pairwise(ends))


def _batch_program(preset: Preset, device: str) -> Callable[[], object]:
    whole = with_batch(preset, CLIENTS * preset.training.batch_size)
    unet = whole.network(device)
    if whole.training.compile is True:
        compile_network(unet)
    images = whole.images(CLIENTS * _IMAGES_PER_CLIENT).to(device)
    schedule = NoiseSchedule.from_config(whole.model.noise, device)
    work = LocalWork(whole.steps, 0.0, 1.0, seed=0)
    return partial(train_locally, unet, images, work, schedule, whole.training)


def _job(preset: Preset, device: str, rounds: int) -> FederatedJob:
    count = CLIENTS * _IMAGES_PER_CLIENT
    clients = np.repeat(np.arange(CLIENTS, dtype=np.int32), _IMAGES_PER_CLIENT)
    config = FederationConfig.model_validate(
        {
            "num_rounds": rounds,
            "local_work": {"unit": "steps", "amount": preset.steps},
            "workers": 1,
            "stacked_clients": CLIENTS,
        }
    )
    settings = ClientSettings(
        model=preset.model,
        training=preset.training,
        channels=preset.channels,
        image_size=preset.image_size,
        seed=0,
    )
    return FederatedJob(
        ImageSet(preset.images(count).numpy()),
        pd.DataFrame({"client_id": clients, "image_index": np.arange(count)}),
        config,
        settings,
        device=device,
    )
