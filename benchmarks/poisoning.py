"""Poisoned federations of ten: what each aggregation rule makes of bad replies.

Small U-Nets on the digits, 5 rounds of 12 steps per client; the score is the Frechet distance of
512 samples to as many training images, by pixels. An attacker trains like the others and then
scales its update by 1,000, or turns it round; ``count`` is one that turns it round and claims 10^9
images. Usage::

    python -m benchmarks.poisoning scores.json              # seeds 0, 1, 2: 45 minutes on one core
    python -m benchmarks.poisoning scores.json --seeds 0    # goes on where a file ends
    python -m benchmarks.poisoning scores.json --rules median --attacks none --minutes 6
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message
from torch import Tensor

from benchmarks.presets import PROJECT
from phoenix_pipeline.config import (
    AggregationConfig,
    FederationConfig,
    ImagesConfig,
    LocalWorkConfig,
    ModelConfig,
    PartitionConfig,
    SamplingConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.diffusion.sampling import sample_images
from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.records import (
    ARRAYS,
    METRICS,
    ClientSettings,
    pack_weights,
    unpack_weights,
)
from phoenix_pipeline.federated.sites import Sites
from phoenix_pipeline.federated.wire import Layout
from phoenix_pipeline.federated.work_plan import cap_counts
from phoenix_pipeline.images import ImageSet, read_images
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.partitioning import partition_clients
from phoenix_pipeline.seeding import image_seeds

CLIENTS, SAMPLES = 10, 512
CLAIMED = 10**9
Answer = Callable[[Message, Context], Message]

PARTITIONS = {
    "iid": PartitionConfig(num_clients=CLIENTS, scheme="iid"),
    "2 classes": PartitionConfig(num_clients=CLIENTS, scheme="pathological", classes_per_client=2),
}
RULES: dict[str, dict[str, Any]] = {
    "mean without a bound": {"clip_norm": {"bound": None}},
    "mean (default)": {},
    "median": {"rule": "median"},
    "trimmed mean, 0.4": {"rule": "trimmed_mean", "trim_fraction": 0.4},
    "krum, f = 3": {"rule": "krum", "num_byzantine": 3},
}
# (attackers, what their update is multiplied by, how often the median count they count for)
ATTACKS: dict[str, tuple[int, float, float]] = {
    "none": (0, 1.0, 1.0),
    "2 scaled": (2, 1000.0, 1.0),
    "4 scaled": (4, 1000.0, 1.0),
    "2 turned": (2, -1.0, 1.0),
    "4 turned": (4, -1.0, 1.0),
    "count, as claimed": (1, -1.0, float(CLAIMED)),
    "count, capped at 3": (1, -1.0, 3.0),
}


def main() -> None:
    """Fill the file cell by cell, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--minutes", type=float, help="begin no further cell after so many")
    asked = parser.parse_args()
    stop = time.monotonic() + 60 * (asked.minutes or math.inf)
    scores = json.loads(asked.file.read_text()) if asked.file.exists() else {}
    images = read_images(PROJECT / "data/01_raw/digits/train.parquet", ImagesConfig())
    for seed in asked.seeds:
        for cell in itertools.product(PARTITIONS, asked.rules, asked.attacks):
            key = "/".join((*cell, str(seed)))
            if key not in scores and time.monotonic() < stop:
                scores[key] = measure(images, *cell, seed)
                asked.file.write_text(json.dumps(scores, indent=1))
    print(table(scores))


def measure(images: ImageSet, partition: str, rule: str, attack: str, seed: int) -> float | None:
    """Return the distance of a run's samples; None where it ended with an error."""
    owned = partition_clients(images.labels, images.num_images, PARTITIONS[partition], seed)
    told = ClientSettings(
        model=ModelConfig(unet=UNetConfig(block_out_channels=(16, 32), attention_resolutions=())),
        training=TrainingConfig(batch_size=32, learning_rate=2e-3, optimizer_state="reset"),
        channels=1,
        image_size=8,
        seed=seed,
    )
    config = FederationConfig(
        num_rounds=5,
        local_work=LocalWorkConfig(unit="steps", amount=12),
        aggregation=AggregationConfig.model_validate(RULES[rule]),
    )
    job = FederatedJob(images, owned, config, told, "cpu")
    try:
        with tempfile.TemporaryDirectory() as folder:
            weights = train(job, attack, Path(folder))
        return distance(weights, told, images)
    except PhoenixError as error:
        print(f"{partition}, {rule}, {attack}, {seed}: {error}", file=sys.stderr)
        return None


def train(job: FederatedJob, attack: str, folder: Path) -> Mapping[str, Tensor]:
    """Return the averaged weights of a run in which the first clients attack."""
    attackers, factor, ratio = ATTACKS[attack]
    sites = Sites.in_memory(job, torch.device("cpu"), ClientStates(folder / "clients"))
    layout = Layout.of(job.settings.build_network().state_dict())
    app = build_client_app(sites)

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if context.node_id <= attackers and reply.has_content():
            start = unpack_weights(message.content[ARRAYS], layout)
            end = unpack_weights(reply.content[ARRAYS], layout)
            wrong = {n: start[n] + factor * (end[n] - start[n]) for n in start}
            reply.content[ARRAYS] = pack_weights(wrong, layout)
            if "count" in attack:
                reply.content[METRICS]["num-examples"] = CLAIMED
        return reply

    sizes = sites.sizes()
    if "count" in attack:
        sizes = cap_counts(sizes | {0: CLAIMED}, ratio)
    with InProcessGrid(answer, sizes, 1, threads=1) as grid:  # type: ignore[arg-type]
        fleet = Fleet(grid, grid.clients, sizes, sites.state)
        return run_program(job, folder, fleet, Watch()).ema


def distance(weights: Mapping[str, Tensor], told: ClientSettings, images: ImageSet) -> float:
    """Return the Frechet distance of samples to as many training images, by pixels in 0..1."""
    network = told.build_network()
    network.load_state_dict(dict(weights))
    sampling = SamplingConfig(num_images=SAMPLES, batch_size=SAMPLES, num_steps=20)
    seeds = list(image_seeds(told.seed, "sample", SAMPLES))
    drawn = sample_images(network, told.model.noise, sampling, (1, 8, 8), seeds, "cpu")
    parts = (np.concatenate(list(drawn)), images.images[:SAMPLES])
    ours, real = (gaussian_statistics(part.reshape(len(part), -1) / 255.0) for part in parts)
    return round(frechet_distance(ours, real), 3)


def table(scores: Mapping[str, float | None]) -> str:
    """Return Markdown: means over seeds, and the range; "ended" where no seed gave a model."""
    lines = [f"| clients | rule | {' | '.join(ATTACKS)} |", "|---" * (len(ATTACKS) + 2) + "|"]
    for partition in PARTITIONS:
        for rule in RULES:
            cells = [_cell(scores, f"{partition}/{rule}/{attack}/") for attack in ATTACKS]
            lines.append(f"| {partition} | {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(scores: Mapping[str, float | None], start: str) -> str:
    found = [score for key, score in scores.items() if key.startswith(start)]
    values = [score for score in found if score is not None]
    if not values:
        return "ended" if found else "-"
    span = f" ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else ""
    return f"{mean(values):.2f}{span}"


if __name__ == "__main__":
    main()
