"""A whole federated round in process against the bare training of its clients.

The bare side is what the engine could reach at best on this machine: the same clients with the
same steps, each trained by the bare loop, as many at a time as the engine trains, with one thread
each; no messages, no averaging, no checkpoint. It runs between the rounds, in the same process.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
from torch import nn

from benchmarks.bare_loop import train_bare
from benchmarks.harness import Options, Row, Work, row_of_pairs, side_by_side
from benchmarks.presets import Preset, presets
from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.server import train_federated
from phoenix_pipeline.hardware import available_cores
from phoenix_pipeline.images import ImageSet

GOAL = 0.95
_CLIENTS = 10
_IMAGES_PER_CLIENT = 100


def run(options: Options) -> list[Row]:
    """Compare whole rounds of ten clients with the bare training of the ten."""
    return [_compare_rounds(preset, options) for preset in presets(options)]


def _compare_rounds(preset: Preset, options: Options) -> Row:
    workers = min(available_cores(), _CLIENTS) if options.device == "cpu" else 1
    now = time.process_time if options.clock == "cpu" else time.perf_counter
    bare = _bare_round(preset, workers, options)
    bare()
    rounds, peers, ends = [], [], []

    def after_round(number: int, _: object) -> None:
        ended = now()
        if number > 1:
            rounds.append(ended - ends[-1])
            bare()
            peers.append(now() - ended)
        ends.append(now())

    with tempfile.TemporaryDirectory() as folder:
        job = _job(preset, workers, options)
        train_federated(job, Path(folder), on_round=after_round)
    return row_of_pairs(
        f"federated_round_{preset.name}",
        f"a whole round of {_CLIENTS} clients, checkpoint included, against their bare training, "
        f"{workers} at a time",
        rounds,
        peers,
        options,
        GOAL,
        steps_per_client=preset.steps,
        workers=workers,
    )


def _bare_round(preset: Preset, workers: int, options: Options) -> Work:
    images = preset.images(_IMAGES_PER_CLIENT).to(options.device)
    tables = NoiseSchedule.from_config(preset.model.noise, options.device)
    networks: SimpleQueue[nn.Module] = SimpleQueue()
    for _ in range(workers):
        network = preset.network(options.device)
        if preset.training.compile is True:
            network.compile()
        networks.put(network)

    def client(_: int) -> None:
        network = networks.get()
        train_bare(network, images, preset, tables).cpu()
        networks.put(network)

    return partial(side_by_side, client, range(_CLIENTS), workers)


def _job(preset: Preset, workers: int, options: Options) -> FederatedJob:
    count = _CLIENTS * _IMAGES_PER_CLIENT
    table = pd.DataFrame(
        {
            "client_id": np.repeat(np.arange(_CLIENTS, dtype=np.int32), _IMAGES_PER_CLIENT),
            "image_index": np.arange(count),
        }
    )
    config = FederationConfig.model_validate(
        {
            "num_rounds": 1 + options.repetitions,
            "local_work": {"unit": "steps", "amount": preset.steps},
            "workers": workers,
            "threads_per_client": 1,
        }
    )
    settings = ClientSettings(
        model=preset.model,
        training=preset.training,
        channels=preset.channels,
        image_size=preset.image_size,
        seed=0,
    )
    images = ImageSet(preset.images(count).numpy())
    return FederatedJob(images, table, config, settings, device=options.device)
