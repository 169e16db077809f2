"""A federation whose clients hold different classes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from torch import Tensor

from phoenix_pipeline.config import ModelConfig, ThresholdFilterConfig
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.sites import Sites, write_sites
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.monitoring import build_monitor_reference
from phoenix_pipeline.optimization.class_rows import EMBEDDING
from phoenix_pipeline.optimization.work import ClientTask, LocalWork
from phoenix_pipeline.seeding import derive_seed
from tests.federated.tiny import (
    SIZES,
    UNET,
    federate,
    interrupt,
    job,
    make_images,
    same,
    settings,
)

# So often that both clients meet the null class in their two steps.
MODEL = ModelConfig(unet=UNET, conditioning="labels", label_dropout=0.5)
NAMES = ("a", "b", "c", "d")
# The first client holds a alone, the second b and c; nobody holds d.
LABELS = np.array([0] * SIZES[0] + [1, 2] * (SIZES[1] // 2))
NULL = len(NAMES)


def images() -> ImageSet:
    return ImageSet(make_images().images, LABELS, NAMES)


def told(layers: tuple[str, ...] = (), **training: Any) -> ClientSettings:
    update = {"model": MODEL, "class_names": NAMES}
    return settings(layers, **training).model_copy(update=update)


def conditional(folder: Path, layers: tuple[str, ...] = (), **options: Any) -> Any:
    training = options.pop("training", {})
    return federate(folder, images=images(), settings=told(layers, **training), **options)


def start() -> dict[str, Tensor]:
    return told().build_network().state_dict()


def test_each_class_is_learnt_by_who_holds_it_and_not_diluted(tmp_path: Path) -> None:
    result = conditional(tmp_path, rounds=1)
    ends = []
    for client, rows in enumerate((slice(0, 12), slice(12, 48))):
        network, chosen = told().build_network(), images()
        work = LocalWork(2, 0.0, 1.0, derive_seed(5, "local_training", client, 1))
        labels = torch.from_numpy(LABELS[rows])
        task = ClientTask(torch.from_numpy(chosen.images[rows]), work, labels=labels)
        DiffusionFamily().train_locally(network, task, MODEL, told().training)
        ends.append(network.state_dict())
    found, initial = result.raw[EMBEDDING], start()[EMBEDDING]
    torch.testing.assert_close(found[0], ends[0][EMBEDDING][0])
    torch.testing.assert_close(found[1:3], ends[1][EMBEDDING][1:3])
    assert torch.equal(found[3], initial[3])
    torch.testing.assert_close(
        found[NULL], 0.25 * ends[0][EMBEDDING][NULL] + 0.75 * ends[1][EMBEDDING][NULL]
    )
    torch.testing.assert_close(
        result.raw["conv_in.weight"],
        0.25 * ends[0]["conv_in.weight"] + 0.75 * ends[1]["conv_in.weight"],
    )


COMPRESSED = {
    "up": {"codec": "uniform", "step": 1.5},
    "down": {"codec": "uniform", "relative_to": "last_broadcast"},
}


def test_codecs_of_few_bits_leave_rows_at_rest(tmp_path: Path) -> None:
    result = conditional(tmp_path, rounds=3, compression=COMPRESSED)
    moved = (result.raw[EMBEDDING] != start()[EMBEDDING]).any(dim=1)
    assert moved.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": COMPRESSED, "strategies": {"alignment": {"share": 0.5}}},
        {"compression": COMPRESSED, "strategies": {"scaffold": {}, "fedprox": {"mu": 0.1}}},
        {"layers": ("class_embedding",), "training": {"optimizer_state": "keep"}},
    ],
    ids=["plain", "compressed", "scaffold", "personal"],
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = conditional(tmp_path / "whole", rounds=3, **options)
    given = dict(options)
    layers, training = given.pop("layers", ()), given.pop("training", {})
    cut = {"images": images(), "settings": told(layers, **training), **given}
    interrupt(tmp_path / "cut", after=2, rounds=3, **cut)
    resumed = conditional(tmp_path / "cut", rounds=3, **options)
    assert same(resumed.raw, whole.raw)
    assert same(resumed.ema, whole.ema)


def test_stacked_clients_learn_what_they_learn_one_after_another(tmp_path: Path) -> None:
    alone = conditional(tmp_path / "alone", rounds=2)
    stacked = conditional(tmp_path / "stacked", rounds=2, stacked_clients=2)
    for name, value in alone.raw.items():
        torch.testing.assert_close(stacked.raw[name], value, rtol=1e-3, atol=5e-4)
    assert torch.equal(stacked.raw[EMBEDDING][3], start()[EMBEDDING][3])


def test_embeddings_of_classes_may_stay_with_the_clients(tmp_path: Path) -> None:
    layers = ("class_embedding",)
    result = conditional(tmp_path, layers, rounds=2, final_average="raw")
    assert EMBEDDING not in result.raw
    own = [result.client_state(client).personal[EMBEDDING] for client in (0, 1)]
    assert result.averaged_personal is not None
    mean = result.averaged_personal[EMBEDDING]
    torch.testing.assert_close(mean[0], own[0][0])
    torch.testing.assert_close(mean[1:3], own[1][1:3])
    assert torch.equal(mean[3], start()[EMBEDDING][3])


def test_noise_of_the_clients_moves_every_row(tmp_path: Path) -> None:
    noise = {"enabled": True, "placement": "local", "clip_norm": 1.0, "noise_multiplier": 0.5}
    result = conditional(tmp_path, rounds=1, differential_privacy=noise)
    assert (result.raw[EMBEDDING] != start()[EMBEDDING]).any(dim=1).all()


def test_a_client_is_scored_by_the_classes_that_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    sample = DiffusionFamily().sample_images

    def record(*arguments: Any, labels: Any = None) -> Any:
        drawn.append(labels)
        return sample(*arguments, labels=labels)

    monkeypatch.setattr(DiffusionFamily, "sample_images", staticmethod(record))
    rules = ThresholdFilterConfig(
        enabled=True, monitor_every=1, monitor_samples=16, monitor_steps=2, absolute_threshold=1e6
    )
    reference = build_monitor_reference(make_images(60), 0)
    conditional(tmp_path, rounds=1, threshold_filter=rules, reference=reference, workers=1)
    assert [sorted(set(labels)) for labels in drawn] == [[0], [1, 2]]


def test_a_warm_up_learns_the_classes_of_the_pool(tmp_path: Path) -> None:
    pool = np.array([0, 1, 13])
    result = conditional(tmp_path, rounds=1, pool=pool, warmup_steps=2)
    assert (result.raw[EMBEDDING] != start()[EMBEDDING]).any(dim=1)[:3].all()


def test_sites_in_a_folder_have_the_labels_of_their_images(tmp_path: Path) -> None:
    states = ClientStates(tmp_path / "states")
    write_sites(tmp_path / "sites", job(images=images()))
    sites = Sites.in_folder(tmp_path / "sites", torch.device("cpu"), states)
    context: Any = SimpleNamespace(node_config={"client-id": 1})
    labels = sites(Message(RecordDict(), 1, "train"), context).labels
    assert labels is not None
    assert labels.tolist() == LABELS[12:].tolist()
    write_sites(tmp_path / "plain", job())
    plain = Sites.in_folder(tmp_path / "plain", torch.device("cpu"), states)
    assert plain(Message(RecordDict(), 1, "train"), context).labels is None
