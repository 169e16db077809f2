"""Full fine-tuning against adapters (LoRA), over clients of two classes each.

``python -m benchmarks.fine_tuning results.csv`` trains a start on the digits 0 to 4 in one place,
and fine-tunes it over ten clients of all ten digits: each variant once, then the best of whole
weights and the best of the adapters that send at most a twentieth with two more seeds. A line that
is in the file already is not made again.
"""

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import phoenix_pipeline as phoenix
from phoenix_pipeline.config import deep_merge

_KNOWN_CLASSES = 5
_CLIENTS = {"scheme": "pathological", "num_clients": 10, "classes_per_client": 2}
_UNET = {"block_out_channels": [32, 64], "attention_resolutions": [4]}
_WORK = {"num_rounds": 24, "local_work": {"unit": "images_per_round", "amount": 960}}
_START = {"num_rounds": 8, "local_work": {"unit": "images_per_round", "amount": 8640}}
_SPACES = ("fid_pixels", "fid_classifier")
_CONVOLUTIONS = ("conv1", "conv2")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_EVERYTHING = (*_ATTENTION, *_CONVOLUTIONS, "conv_shortcut", "time_emb_proj", "conv")
_SCORES = (*_SPACES, "recall_classifier", "coverage_classifier", "class_entropy")
_COLUMNS = ("variant", "seed", *_SCORES, "bytes_up", "bytes_down", "seconds")
_START_ROW, _GOAL = "start", 20


def full(rate: float) -> dict[str, Any]:
    """Return the settings of full fine-tuning with this learning rate."""
    return {"training": {"learning_rate": rate}}


def lora(rank: int, rate: float, targets: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """Return the settings of adapters."""
    adapters = {"rank": rank, "target_modules": list(targets), **more}
    return {"training": {"learning_rate": rate}, "model": {"lora": adapters}}


VARIANTS: Mapping[str, dict[str, Any]] = {
    "full 1e-3": full(1e-3),
    "full 2e-3": full(2e-3),
    "full 4e-3": full(4e-3),
    "attention r8 8e-3": lora(8, 8e-3, _ATTENTION),
    "conv r2 4e-3": lora(2, 4e-3, _CONVOLUTIONS),
    "conv r2 8e-3": lora(2, 8e-3, _CONVOLUTIONS),
    "all r2 8e-3": lora(2, 8e-3, _EVERYTHING),
    "all r2 16e-3": lora(2, 16e-3, _EVERYTHING),
    "all r8 A at rest 8e-3": lora(8, 8e-3, _EVERYTHING, freeze_a=True),
    "all r12 A at rest 16e-3": lora(12, 16e-3, _EVERYTHING, freeze_a=True),
}


def main() -> None:
    """Read the command line and make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--repeats", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--folder", type=Path, default=Path("data/fine_tuning"))
    parser.add_argument("--images", default="data/01_raw/digits")
    given = parser.parse_args()
    images = phoenix.read_images(given.images)
    start = train_start(images, given.folder / "start")
    for seed in given.seeds:
        for name in given.variants:
            _make(given, images, start, name, seed)
    for name in best_of(_read(given.results), given.seeds[0]):
        for seed in given.repeats:
            _make(given, images, start, name, seed)


def best_of(rows: Sequence[Mapping[str, str]], seed: int) -> list[str]:
    """Return the variants of ``seed`` that come closest in pixels: whole weights, and adapters."""
    known = [row for row in rows if row["seed"] == str(seed) and row["variant"] != _START_ROW]
    whole = [row for row in known if not VARIANTS[row["variant"]].get("model")]
    small = [
        row
        for row in known
        if row not in whole and any(traffic(each) >= _GOAL * traffic(row) for each in whole)
    ]
    best = [min(each, key=lambda row: float(row["fid_pixels"])) for each in (whole, small) if each]
    return [row["variant"] for row in best]


def traffic(row: Mapping[str, str]) -> int:
    """Return the bytes of all messages."""
    return int(row["bytes_up"]) + int(row["bytes_down"])


def train_start(images: phoenix.Images, folder: Path) -> Path:
    """Return the folder of a model of the digits 0 to 4, trained unless it is there."""
    if not (folder / "model").is_dir():
        train, labels = images.train, images.train.labels
        assert labels is not None  # noqa: S101
        known = phoenix.Images(train.subset(labels < _KNOWN_CLASSES), images.test, images.config)
        clients = phoenix.partition(known, scheme="iid", num_clients=1)
        model, training = {"unet": _UNET}, {"learning_rate": 2e-3, "batch_size": 64}
        phoenix.train(
            known, clients, "centralized", folder=folder, model=model, training=training,
            federation=_START,
        )  # fmt: skip
    return folder / "model"


def measure(
    images: phoenix.Images, start: Path, name: str, seed: int, folder: Path
) -> dict[str, Any]:
    """Return scores and costs of one fine-tuning."""
    clients = phoenix.partition(images, **_CLIENTS, seed=seed)
    settings = {"model": {"unet": _UNET, "start_from": str(start)}, "federation": _WORK}
    begun = time.perf_counter()
    model = phoenix.train(
        images, clients, "fedavg", run={"seed": seed}, **deep_merge(settings, VARIANTS[name])
    )
    seconds = round(time.perf_counter() - begun)
    sent = {name: int(model.rounds[name].sum()) for name in ("bytes_up", "bytes_down")}
    return {**_score(model, images, folder, seed), **sent, "seconds": seconds}


def _make(
    given: argparse.Namespace, images: phoenix.Images, start: Path, name: str, seed: int
) -> None:
    """Add a line, and with the first of a seed one of the start, unless they are there."""
    known = {(row["variant"], row["seed"]) for row in _read(given.results)}
    if (_START_ROW, str(seed)) not in known:
        scores = _score(phoenix.load(start), images, given.folder, seed)
        _append(given.results, {"variant": _START_ROW, "seed": seed, **scores})
    if (name, str(seed)) not in known:
        row = measure(images, start, name, seed, given.folder)
        _append(given.results, {"variant": name, "seed": seed, **row})


def _score(model: Any, images: phoenix.Images, folder: Path, seed: int) -> dict[str, Any]:
    samples = model.sample(1000, seed=seed)
    evaluation = {"extractors": list(_SPACES)}
    found = phoenix.score(samples, images, folder=folder / "judge", evaluation=evaluation)
    return {name: found.scores[name] for name in _SCORES}


def _read(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(newline="") as rows:
        return list(csv.DictReader(rows))


def _append(file: Path, row: Mapping[str, Any]) -> None:
    is_new = not file.is_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="") as rows:
        writer = csv.DictWriter(rows, _COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
