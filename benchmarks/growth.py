"""How time and peak memory grow with images, image size, the network, and the number of clients.

Each point runs in a process of its own, so that a peak is its own. The first three are local
training; clients are whole rounds of ``benchmarks.scale``, in which each makes one step.
``python -m benchmarks.growth_figure`` draws the curves.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import torch

from benchmarks.harness import Options, Row, growth_exponent, machine
from benchmarks.peak_memory import peak_mb
from phoenix_pipeline.config import NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.optimization.work import LocalWork

# What is varied; everything else stays as in ``_BASE``.
_BASE = {"images": 1000, "image_size": 8, "channels": 16, "steps": 6}
AXES: Mapping[str, Sequence[int]] = {
    "images": (1000, 5000, 20_000, 50_000),
    "image_size": (8, 16, 32, 64),
    "channels": (16, 32, 64, 128),
}
_CLIENTS = (10, 100, 1000)
_ROUNDS = 2
_BATCH = 32
_PASSES = 0.1


def run(options: Options) -> list[Row]:
    """Return a row per axis: the points, and the exponents of time and memory."""
    rows = []
    for axis, sizes in (AXES | {"clients": _CLIENTS}).items():
        point = _round if axis == "clients" else _training
        few = sizes[:2] if options.quick else sizes
        rows.append(_row(axis, [point(axis, size) for size in few]))
    return rows


def _row(axis: str, points: Sequence[Mapping[str, float]]) -> Row:
    grown = [point["parameters"] if axis == "channels" else point[axis] for point in points]
    memory = [point["peak_mb"] - point["imports_mb"] for point in points]
    details = {
        "points": points,
        "exponent_of_seconds": growth_exponent(grown, [p["seconds"] for p in points]),
        "exponent_of_memory": growth_exponent(grown, memory),
    }
    what = "parameters of the network" if axis == "channels" else axis.replace("_", " ")
    return Row(
        f"growth_{axis}",
        f"curve only: seconds ~ n^{details['exponent_of_seconds']:.2f}, memory beyond the imports "
        f"~ n^{details['exponent_of_memory']:.2f}, n: {what}",
        machine=machine("cpu"),
        details=details,
    )


def _training(axis: str, size: int) -> dict[str, float]:
    asked = _BASE | {axis: size}
    if axis == "images":
        asked["steps"] = max(1, round(_PASSES * size / _BATCH))
    return _in_a_process(["-m", "benchmarks.growth", json.dumps(asked)])


def _round(axis: str, clients: int) -> dict[str, float]:
    """Return the seconds of a round in which all clients train, and the peak."""
    asked = {"clients": clients, "per-round": clients, "rounds": _ROUNDS}
    arguments = [f"--{key}={value}" for key, value in asked.items()]
    point = _in_a_process(["-m", "benchmarks.scale", *arguments])
    return point | {"seconds": clients * point["wall_ms_per_client"] / 1000}


def _in_a_process(arguments: Sequence[str]) -> dict[str, float]:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    point: dict[str, float] = json.loads(done.stdout)
    return point


def measure(images: int, image_size: int, channels: int, steps: int) -> dict[str, float]:
    """Train for ``steps`` and return the point with its seconds and peak megabytes."""
    before = peak_mb()
    shape = UNetConfig(
        block_out_channels=(channels, 2 * channels), attention_resolutions=(image_size // 2,)
    )
    unet = build_unet(shape, 3, image_size, 0)
    pixels = torch.ones((images, 3, image_size, image_size), dtype=torch.uint8)
    tables = NoiseSchedule.from_config(NoiseConfig(), "cpu")
    config = TrainingConfig(batch_size=_BATCH)
    train_locally(unet, pixels, LocalWork(1, 0.0, 1.0, 0), tables, config)
    start = time.perf_counter()
    train_locally(unet, pixels, LocalWork(steps, 0.0, 1.0, 0), tables, config)
    return {
        "images": images,
        "image_size": image_size,
        "parameters": sum(p.numel() for p in unet.parameters()),
        "steps": steps,
        "seconds": time.perf_counter() - start,
        "peak_mb": peak_mb(),
        "imports_mb": before,
    }


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
