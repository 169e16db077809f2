"""A small project around the preset ``cifar10_h200``: a few rounds on images made up here."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from phoenix_pipeline.framework.config_loader import deep_merge
from phoenix_pipeline.images import ImageSet, write_images
from phoenix_pipeline.seeding import numpy_generator

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = "gpu_check"
ROUNDS = 3
PRESET = "cifar10_h200"
_CLASSES = 10


def make_project(folder: Path, device: str, tiny: bool) -> Path:
    """Write a project whose environment ``gpu_check`` is the preset with few images and rounds.

    Networks, batch, precision and layout are the preset's own unless it is ``tiny``.
    """
    shutil.copytree(PROJECT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    shutil.copy(PROJECT / "pyproject.toml", folder)
    # A copy: Kedro refuses sources that lie outside of the project.
    without = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PROJECT / "src", folder / "src", ignore=without)
    preset = PROJECT / "conf" / PRESET / f"parameters_{PRESET}.yml"
    parameters = yaml.safe_load(preset.read_text(encoding="utf-8"))
    parameters = deep_merge(parameters, _changes(device))
    if tiny:
        parameters = deep_merge(parameters, _TINY)
    places = {"data_root": "data"} | {f"{s}_images": f"raw/{s}.parquet" for s in ("train", "test")}
    environment = folder / "conf" / ENVIRONMENT
    environment.mkdir()
    for name, content in (("parameters", parameters), ("globals", places)):
        (environment / f"{name}.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    for split, count in (("train", 200 if tiny else 2000), ("test", 100 if tiny else 500)):
        write_images(_images(split, count, 8 if tiny else 32), folder / f"raw/{split}.parquet")
    return folder


# Arms that may have rounds of their own in the preset.
_WITH_ROUNDS = ("centralized", "phoenix", "phoenix_labels")


def _changes(device: str) -> dict[str, Any]:
    """Return what makes the preset short: a few steps of each client in each of three rounds.

    Nothing is compiled: that would take minutes for each arm, and the speeds compile the same.
    """
    federation = {
        "num_rounds": ROUNDS,
        "local_work": {"unit": "images_per_round", "amount": 3840},
        "checkpoint_every": 1,
    }
    return {
        "run": {"device": device},
        **{arm: {"federation": federation} for arm in _WITH_ROUNDS},
        "federation": federation,
        "training": {"optimizer_state": "keep", "compile": False},
        "personalization": {
            "threshold_filter": {"monitor_every": 1, "monitor_samples": 32, "monitor_steps": 2}
        },
        "sampling": {"num_images": 200, "batch_size": 100, "num_steps": 4, "compile": False},
        "evaluation": {
            "extractors": ["fid_classifier", "fid_pixels"],
            "kid_subset_size": 50,
            "classifier": {"epochs": 1},
        },
    }


_TINY_FEDERATION = {"local_work": {"unit": "images_per_round", "amount": 60}}
_TINY: dict[str, Any] = {
    "partition": {"num_clients": 4, "classes_per_client": 3},
    "model": {
        "unet": {
            "block_out_channels": [8],
            "layers_per_block": 1,
            "attention_resolutions": [],
            "norm_num_groups": 4,
            "attention_head_dim": 8,
        },
        "dcgan": {"base_channels": 8, "latent_dim": 8},
    },
    "training": {"batch_size": 5},
    "dcgan": {"training": {"batch_size": 5}},
    "federation": _TINY_FEDERATION,
    **{arm: {"federation": _TINY_FEDERATION} for arm in _WITH_ROUNDS if arm != "centralized"},
    "centralized": {"federation": _TINY_FEDERATION, "training": {"batch_size": 5}},
    "personalization": {"threshold_filter": {"monitor_samples": 16}},
    "sampling": {"num_images": 40, "batch_size": 20, "num_steps": 2, "grid_images": 16},
    "evaluation": {
        "kid_subset_size": 16,
        "batch_size": 50,
        "classifier": {"channels": 8, "batch_size": 20},
    },
}


def _images(split: str, count: int, side: int) -> ImageSet:
    """Return noise around a colour of each class, so that a judge has something to learn."""
    generator = numpy_generator(0, f"gpu_check_{split}")
    labels = np.arange(count) % _CLASSES
    colours = np.linspace(40, 215, _CLASSES * 3).reshape(_CLASSES, 3)[:, :, None, None]
    pixels = colours[labels] + generator.normal(0.0, 20.0, (count, 3, side, side))
    names = tuple(f"class {number}" for number in range(_CLASSES))
    return ImageSet(pixels.clip(0, 255).astype(np.uint8), labels.astype(np.int64), names)
