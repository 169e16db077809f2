"""Full fine-tuning against adapters (LoRA), over clients of two classes each.

``python -m benchmarks.fine_tuning results.csv --variants "full 2e-3" "all r8 8e-3"`` trains a start
in one place and fine-tunes it over ten clients. ``--start classes`` has learnt the digits 0 to 4
and is to draw all ten, ``--start inverted`` has learnt all of them and is to draw them inverted, as
another scanner has them. The variant ``start`` is the model before it. A line that is in the file
already is not made again.
"""

import argparse
import csv
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import phoenix_pipeline as phoenix
from phoenix_pipeline.config import deep_merge

_KNOWN_CLASSES = 5
_CLIENTS = {"scheme": "pathological", "num_clients": 10, "classes_per_client": 2}
# Half of the classes are learnt by a wider network than the default of 8 pixels.
_CHANNELS = {"classes": [32, 64], "inverted": [16, 32]}
_START = {"num_rounds": 8, "local_work": {"unit": "images_per_round", "amount": 8640}}
_SPACES = ("fid_pixels", "fid_classifier")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_CONVOLUTIONS = ("conv1", "conv2")
_ALL = (*_ATTENTION, *_CONVOLUTIONS, "conv_shortcut", "time_emb_proj", "conv")
_ENDS = ("conv_in", "conv_out")
_NORMS = ("norm1", "norm2", "group_norm", "conv_norm_out")
_TARGETS = {
    "attention": _ATTENTION,
    "conv": _CONVOLUTIONS,
    "all": _ALL,
    "all and ends": (*_ALL, *_ENDS),
}
_WHOLE = {"": (), " with ends": _ENDS, " with ends and norms": (*_ENDS, *_NORMS)}
_VARIANT = re.compile(
    r"full (?P<full>\S+)"
    rf"|(?P<targets>{'|'.join(_TARGETS)}) r(?P<rank>\d+)(?P<at_rest> A at rest)?"
    rf"(?P<whole>{'|'.join(_WHOLE)}) (?P<rate>\S+)"
)
_CODECS: Mapping[str, dict[str, Any]] = {
    "none": {},
    "int4": {"up": {"codec": "int4"}, "down": {"codec": "int4", "relative_to": "last_broadcast"}},
    # As in the arm phoenix.
    "uniform": {
        "up": {"codec": "uniform", "step": 1.5},
        "down": {"codec": "uniform", "relative_to": "last_broadcast"},
    },
}
_SCORES = (*_SPACES, "recall_classifier", "coverage_classifier", "class_entropy")
_START_ROW = "start"
_KEY = ("variant", "codec", "rounds", "images", "seed")
_COLUMNS = (*_KEY, *_SCORES, "bytes_up", "bytes_down", "seconds")


def settings_of(variant: str) -> dict[str, Any]:
    """Return the settings of ``full RATE`` or ``TARGETS rRANK [A at rest] [with WHOLE] RATE``.

    Raises:
        ValueError: another text.
    """
    read = _VARIANT.fullmatch(variant)
    if read is None:
        raise ValueError(
            f"a variant is {variant!r}; allowed are such as 'full 2e-3', 'all r8 8e-3' and "
            "'conv r8 A at rest with ends 8e-3', with the targets "
            f"{', '.join(_TARGETS)} and{', '.join(_WHOLE)}"
        )
    if read["full"]:
        return {"training": {"learning_rate": float(read["full"])}}
    lora = {
        "rank": int(read["rank"]),
        "target_modules": list(_TARGETS[read["targets"]]),
        "freeze_a": read["at_rest"] is not None,
        "modules_to_save": list(_WHOLE[read["whole"]]),
    }
    return {"training": {"learning_rate": float(read["rate"])}, "model": {"lora": lora}}


def main() -> None:
    """Read the command line and make what is missing."""
    given = _arguments()
    images = phoenix.read_images(given.images)
    channels = given.channels or _CHANNELS[given.start]
    name = "_".join([given.start, *map(str, given.channels)])
    start = train_start(images, given.folder / name, given.start, channels)
    if given.start == "inverted":
        images = phoenix.Images(_invert(images.train), _invert(images.test), images.config)
    for seed in given.seeds:
        for variant in given.variants:
            key = {
                "variant": variant,
                "codec": given.codec,
                "rounds": given.rounds,
                "images": given.amount,
                "seed": seed,
            }
            _make(given, images, start, channels, key)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", required=True, help="as settings_of reads them")
    parser.add_argument("--codec", choices=list(_CODECS), default="none")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--amount", type=int, default=23040, help="images of all rounds together")
    parser.add_argument("--start", choices=list(_CHANNELS), default="inverted")
    parser.add_argument("--channels", type=int, nargs="*", default=[], help="of the U-Net")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=Path("data/fine_tuning"))
    parser.add_argument("--images", default="data/01_raw/digits")
    return parser.parse_args()


def train_start(images: phoenix.Images, folder: Path, kind: str, channels: list[int]) -> Path:
    """Return the folder of a model of the digits 0 to 4, or of all, trained unless it is there."""
    if not (folder / "model").is_dir():
        known, labels = images, images.train.labels
        if kind == "classes" and labels is not None:
            train = images.train.subset(labels < _KNOWN_CLASSES)
            known = phoenix.Images(train, images.test, images.config)
        clients = phoenix.partition(known, scheme="iid", num_clients=1)
        model, training = {"unet": _unet(channels)}, {"learning_rate": 2e-3, "batch_size": 64}
        phoenix.train(
            known, clients, "centralized", folder=folder, model=model, training=training,
            federation=_START,
        )  # fmt: skip
    return folder / "model"


def _unet(channels: list[int]) -> dict[str, Any]:
    return {"block_out_channels": channels, "attention_resolutions": [4]}


def _invert(part: phoenix.ImageSet) -> phoenix.ImageSet:
    return phoenix.ImageSet(255 - part.images, part.labels, part.class_names)


def measure(
    given: argparse.Namespace,
    images: phoenix.Images,
    start: Path,
    channels: list[int],
    key: Mapping[str, Any],
) -> dict[str, Any]:
    """Return scores and costs of one fine-tuning."""
    seed = key["seed"]
    clients = phoenix.partition(images, **_CLIENTS, seed=seed)
    work = {"unit": "images_per_round", "amount": key["images"] // key["rounds"]}
    settings = {
        "model": {"unet": _unet(channels), "start_from": str(start)},
        "federation": {
            "num_rounds": key["rounds"],
            "local_work": work,
            "workers": given.workers,
            "compression": _CODECS[key["codec"]],
        },
    }
    begun = time.perf_counter()
    model = phoenix.train(
        images, clients, "fedavg", run={"seed": seed},
        **deep_merge(settings, settings_of(key["variant"])),
    )  # fmt: skip
    seconds = round(time.perf_counter() - begun)
    sent = {name: int(model.rounds[name].sum()) for name in ("bytes_up", "bytes_down")}
    return {**_score(model, images, given, seed), **sent, "seconds": seconds}


def _make(
    given: argparse.Namespace,
    images: phoenix.Images,
    start: Path,
    channels: list[int],
    key: Mapping[str, Any],
) -> None:
    """Add a line unless it is there."""
    wanted = [str(value) for value in key.values()]
    if any([row[name] for name in _KEY] == wanted for row in _read(given.results)):
        return
    if key["variant"] == _START_ROW:
        row = _score(phoenix.load(start), images, given, key["seed"])
    else:
        row = measure(given, images, start, channels, key)
    _append(given.results, {**key, **row})


def _score(
    model: Any, images: phoenix.Images, given: argparse.Namespace, seed: int
) -> dict[str, Any]:
    samples = model.sample(1000, seed=seed)
    evaluation, judge = {"extractors": list(_SPACES)}, given.folder / f"judge_{given.start}"
    found = phoenix.score(samples, images, folder=judge, evaluation=evaluation)
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
