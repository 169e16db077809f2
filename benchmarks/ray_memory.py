"""Measure the memory of the Ray engine over many tiny rounds: the driver's and the actors'.

Usage: ``python benchmarks/ray_memory.py memory.csv [rounds]``; needs the extra ``ray`` and /proc.
"""

import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from phoenix_pipeline.config import (
    FederationConfig,
    LocalWorkConfig,
    ModelConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.server import train_federated
from phoenix_pipeline.images import ImageSet

CLIENTS, IMAGES, SIDE = 4, 16, 8
SEED = 0


def resident_mb(process: Path) -> float:
    """Return a process's resident memory in MB; 0 where it has just ended."""
    try:
        pages = int((process / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def actors() -> list[Path]:
    """Return the processes of Flower's actors, which Ray names ``ray::ClientAppActor``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::ClientAppActor"):
            found.append(process)
    return found


def tiny_job(rounds: int) -> FederatedJob:
    """Return a federation that does next to nothing in each of ``rounds``."""
    pixels = np.random.default_rng(SEED).integers(
        0, 256, (CLIENTS * IMAGES, 1, SIDE, SIDE), dtype=np.uint8
    )
    unet = UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
    work = LocalWorkConfig(unit="steps", amount=1)
    table = {"client_id": np.repeat(np.arange(CLIENTS), IMAGES)}
    return FederatedJob(
        images=ImageSet(pixels),
        client_images=pd.DataFrame({**table, "image_index": np.arange(CLIENTS * IMAGES)}),
        config=FederationConfig(engine="ray", num_rounds=rounds, local_work=work, workers=2),
        settings=ClientSettings(
            model=ModelConfig(unet=unet),
            training=TrainingConfig(batch_size=8, optimizer_state="keep"),
            channels=1,
            image_size=SIDE,
            seed=SEED,
        ),
        device="cpu",
    )


def main(target: Path, rounds: int) -> None:
    """Run the rounds; write a row each (MB of the driver, of the actors), and print some."""
    start = time.perf_counter()
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("round", "seconds", "driver_mb", "actors", "actors_mb"))

        def measure(number: int, means: object) -> None:
            sizes = [resident_mb(process) for process in actors()]
            driver, seconds = resident_mb(Path("/proc/self")), time.perf_counter() - start
            row = (number, f"{seconds:.1f}", f"{driver:.1f}", len(sizes), f"{sum(sizes):.1f}")
            writer.writerow(row)
            file.flush()
            if number in (1, 10, rounds) or number % 50 == 0:
                print(f"round {number}: driver {driver:.0f} MB, actors {sum(sizes):.0f} MB")

        with tempfile.TemporaryDirectory() as folder:
            train_federated(tiny_job(rounds), Path(folder), on_round=measure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200)
