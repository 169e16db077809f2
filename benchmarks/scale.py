"""Measure what many clients cost one process: memory, and time beyond the training itself.

Each size runs in a process of its own, on engine ``in_process`` with one worker and one thread;
every client makes one step on one image. Usage::

    python -m benchmarks.scale                                       # the table of docs/scaling.md
    python -m benchmarks.scale --clients 1000 --per-round 100        # one size, as JSON
    python -m benchmarks.scale --clients 1000 --per-round 100 --state keep
    python -m benchmarks.scale --clients 1000 --per-round 100 --no-training   # the rest alone
    python -m benchmarks.scale --history 1000                        # rounds of 100 rows, no model
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.peak_memory import peak_mb

SIZES = ((10, 10, 10), (1000, 100, 3), (10_000, 100, 2))
IMAGES_PER_CLIENT = 4


def main() -> None:
    """Run one size, or all sizes as child processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int)
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--state", choices=["keep", "reset"], default="reset")
    parser.add_argument("--no-training", action="store_true", help="clients send what they got")
    parser.add_argument("--history", type=int, metavar="ROUNDS")
    asked = parser.parse_args()
    if asked.history:
        print(json.dumps(measure_history(asked.history, asked.per_round)))
        return
    if asked.clients:
        if asked.no_training:
            leave_training_out()
        print(json.dumps(measure(asked.clients, asked.per_round, asked.rounds, asked.state)))
        return
    for clients, per_round, rounds in SIZES:
        options = {"clients": clients, "per-round": per_round, "rounds": rounds}
        arguments = [f"--{key}={value}" for key, value in options.items()]
        for more in ([], ["--no-training"]):
            subprocess.run(
                [sys.executable, "-m", "benchmarks.scale", *arguments, *more], check=True
            )


def measure(clients: int, per_round: int, rounds: int, state: str) -> dict[str, Any]:
    """Run a federation and return its figures: seconds, milliseconds, megabytes."""
    from phoenix_pipeline.federated.server import train_federated

    job, before = make_job(clients, per_round, rounds, state), peak_mb()
    ends: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        began = clocks()
        result = train_federated(
            job, Path(folder), on_round=lambda number, means: ends.append(clocks())
        )
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    # The first round builds the network and imports; with one round there is nothing else.
    first, measured = (ends[0], rounds - 1) if rounds > 1 else (began, 1)
    later = result.rounds[result.rounds["round"] > rounds - measured]
    wall, used = (last - start for last, start in zip(ends[-1], first, strict=True))
    return {
        "clients": clients,
        "per_round": per_round,
        "rounds": rounds,
        "optimizer_state": state,
        "parameters": sum(tensor.numel() for tensor in result.raw.values()),
        "training_ms_per_client": round(1000 * float(later["seconds"].mean()), 2),
        "wall_ms_per_client": round(1000 * wall / len(later), 2),
        "cpu_ms_per_client": round(1000 * used / len(later), 2),
        "peak_mb": round(peak_mb()),
        "imports_mb": round(before),
        "disk_mb": round(disk / 1e6, 1),
    }


def measure_history(rounds: int, per_round: int) -> dict[str, Any]:
    """Save the rows of many rounds, a checkpoint each, and read them back."""
    from phoenix_pipeline.federated.history import History, new_row

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "history.jsonl"
        history, before, costs = History(file), peak_mb(), []
        for number in range(1, rounds + 1):
            rows = [new_row(number, c, 40) | {"loss": 1 / (c + 3)} for c in range(per_round)]
            start = clocks()
            history.add(number, rows)
            mark = history.save()
            costs.append(clocks()[1] - start[1])
        grown, start = peak_mb() - before, clocks()
        History.restore(file, mark)
        return {
            "rounds": rounds,
            "rows": rounds * per_round,
            "file_mb": round(mark["bytes"] / 1e6, 2),
            "cpu_ms_per_save_first_10": round(100 * sum(costs[:10]), 2),
            "cpu_ms_per_save_last_10": round(100 * sum(costs[-10:]), 2),
            "restore_cpu_s": round(clocks()[1] - start[1], 2),
            "memory_mb": round(grown, 1),
        }


def leave_training_out() -> None:
    """Have clients send back what they got, with moments of zeros: the rest is what remains."""
    import torch

    from phoenix_pipeline.families.diffusion import DiffusionFamily
    from phoenix_pipeline.optimization.work import LocalResult

    def train_nothing(self: Any, network: Any, *others: Any) -> LocalResult:
        moments = others[-1]
        if moments == {}:
            for kind in ("exp_avg", "exp_avg_sq"):
                for name, weights in network.named_parameters():
                    moments[f"{kind}/{name}"] = torch.zeros_like(weights)
        return LocalResult(loss=1.0, images_trained=0, seconds=0.0)

    setattr(DiffusionFamily, "train_locally", train_nothing)  # noqa: B010


def clocks() -> tuple[float, float]:
    """Return (wall clock, CPU time of this process) in seconds."""
    return time.perf_counter(), time.process_time()


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
