"""Measure what many clients cost one process: memory, and time beyond the training itself.

Each size runs in a process of its own, on engine ``in_process`` with one worker and one thread;
every client makes one step on one image. Usage::

    python benchmarks/scale.py                                       # the table of docs/scaling.md
    python benchmarks/scale.py --clients 1000 --per-round 100        # one size, as JSON
    python benchmarks/scale.py --clients 1000 --per-round 100 --state keep
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = ((10, 10, 10), (1000, 100, 3), (10_000, 100, 1))
IMAGES_PER_CLIENT = 4


def main() -> None:
    """Run one size, or all sizes as child processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int)
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--state", choices=["keep", "reset"], default="reset")
    asked = parser.parse_args()
    if asked.clients:
        print(json.dumps(measure(asked.clients, asked.per_round, asked.rounds, asked.state)))
        return
    for clients, per_round, rounds in SIZES:
        options = {"clients": clients, "per-round": per_round, "rounds": rounds}
        arguments = [f"--{key}={value}" for key, value in options.items()]
        subprocess.run([sys.executable, __file__, *arguments], check=True)


def measure(clients: int, per_round: int, rounds: int, state: str) -> dict[str, Any]:
    """Run a federation and return its figures: seconds, milliseconds, megabytes."""
    from phoenix_pipeline.federated.server import train_federated

    job = make_job(clients, per_round, rounds, state)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), time.process_time()
        result = train_federated(
            job, Path(folder), on_round=lambda number, means: ends.append(time.perf_counter())
        )
        wall, used = time.perf_counter() - began, time.process_time() - used
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    training = float(result.rounds["seconds"].sum())
    trained = len(result.rounds)
    return {
        "clients": clients,
        "per_round": per_round,
        "rounds": rounds,
        "optimizer_state": state,
        "parameters": sum(tensor.numel() for tensor in result.raw.values()),
        "wall_s": round(wall, 2),
        "cpu_s": round(used, 2),
        "training_s": round(training, 2),
        "overhead_ms_per_client": round(1000 * (wall - training) / trained, 2),
        "start_s": round(ends[0] - began - (ends[-1] - ends[0]) / max(1, rounds - 1), 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "disk_mb": round(disk / 1e6, 1),
    }


def make_job(clients: int, per_round: int, rounds: int, state: str) -> Any:
    """Return the job: a U-Net of about one million parameters, images of noise."""
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
    from phoenix_pipeline.images import ImageSet

    count = clients * IMAGES_PER_CLIENT
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    unet = UNetConfig(block_out_channels=(40, 80), layers_per_block=1, attention_resolutions=(4,))
    settings = ClientSettings(
        model=ModelConfig(unet=unet),
        training=TrainingConfig(batch_size=1, optimizer_state=state),
        channels=1,
        image_size=8,
        seed=0,
    )
    federation = FederationConfig(
        num_rounds=rounds,
        local_work=LocalWorkConfig(unit="steps", amount=1),
        client_fraction=per_round / clients,
        workers=1,
        threads_per_client=1,
    )
    owners = np.repeat(np.arange(clients), IMAGES_PER_CLIENT)
    table = pd.DataFrame({"client_id": owners, "image_index": np.arange(count)})
    return FederatedJob(ImageSet(pixels), table, federation, settings, device="cpu")


if __name__ == "__main__":
    main()
