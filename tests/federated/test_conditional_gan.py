"""A federation of GANs that know classes, whose clients hold different ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.work import ClientTask, LocalWork
from phoenix_pipeline.seeding import derive_seed
from tests.federated.tiny import SIZES, federate, interrupt, make_images, same, settings

GAN = {"latent_dim": 5, "base_channels": 4, "layers_per_resolution": 1}
MODEL = ModelConfig.model_validate({"family": "dcgan", "conditioning": "labels", "dcgan": GAN})
NAMES = ("a", "b", "c", "d")
# The first client holds a alone, the second b and c; nobody holds d.
LABELS = np.array([0] * SIZES[0] + [1, 2] * (SIZES[1] // 2))
ROWS = ("generator.class_embedding.weight", "discriminator.class_embedding.weight")
BOTH = ("generator.class_embedding", "discriminator.class_embedding")


def told(layers: tuple[str, ...] = (), **training: Any) -> ClientSettings:
    return settings(layers, **training).model_copy(update={"model": MODEL, "class_names": NAMES})


def given(layers: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    training = options.pop("training", {})
    images = ImageSet(make_images().images, LABELS, NAMES)
    return {"images": images, "settings": told(layers, **training), **options}


def trained_alone() -> list[dict[str, Tensor]]:
    ends = []
    for client, rows in enumerate((slice(0, SIZES[0]), slice(SIZES[0], sum(SIZES)))):
        network, images = told().build_network(), make_images().images
        work = LocalWork(2, 0.0, 1.0, derive_seed(5, "local_training", client, 1))
        labels = torch.from_numpy(LABELS[rows])
        task = ClientTask(torch.from_numpy(images[rows]), work, labels=labels)
        DcganFamily().train_locally(network, task, MODEL, told().training)
        ends.append(network.state_dict())
    return ends


def test_each_class_is_learnt_by_who_holds_it_and_not_diluted(tmp_path: Path) -> None:
    result = federate(tmp_path, rounds=1, **given())
    start, (first, second) = told().build_network().state_dict(), trained_alone()
    for name in ROWS:
        torch.testing.assert_close(result.raw[name][0], first[name][0])
        torch.testing.assert_close(result.raw[name][1:3], second[name][1:3])
        assert torch.equal(result.raw[name][3], start[name][3])
    body = "generator.layers.0.weight"
    torch.testing.assert_close(result.raw[body], 0.25 * first[body] + 0.75 * second[body])


COMPRESSED = {
    "up": {"codec": "uniform", "step": 1.5},
    "down": {"codec": "uniform", "relative_to": "last_broadcast"},
}


@pytest.mark.parametrize(
    "options",
    [
        {"compression": COMPRESSED, "strategies": {"alignment": {"share": 0.5}}},
        {"layers": BOTH, "training": {"optimizer_state": "keep"}},
    ],
    ids=["compressed", "personal"],
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = federate(tmp_path / "whole", rounds=3, **given(**options))
    interrupt(tmp_path / "cut", after=2, rounds=3, **given(**options))
    resumed = federate(tmp_path / "cut", rounds=3, **given(**options))
    assert same(resumed.raw, whole.raw)
    assert same(resumed.ema, whole.ema)
    start = told().build_network().state_dict()
    for name in ROWS:
        if "layers" in options:
            assert name not in whole.raw
        else:
            moved = (whole.raw[name] != start[name]).any(dim=1)
            assert moved.tolist() == [True, True, True, False]
