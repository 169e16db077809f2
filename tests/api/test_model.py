"""Training, samples and folders from Python."""

import gc
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import phoenix_pipeline as phoenix
from phoenix_pipeline.errors import BusyError, CheckpointError, DataError, SettingsError
from phoenix_pipeline.extras import how_to_install
from tests.federated.tiny import UNET

CLIENTS = pd.DataFrame({"client_id": np.repeat([0, 1], [30, 10]), "image_index": np.arange(40)})
TINY: dict[str, Any] = {
    "run": {"seed": 5, "device": "cpu"},
    "model": {"unet": UNET.model_dump()},
    "training": {"batch_size": 8},
    "federation": {
        "num_rounds": 2,
        "checkpoint_every": 1,
        "local_work": {"unit": "steps", "amount": 1},
    },
    "sampling": {"num_steps": 2},
}
PERSONAL = {**TINY, "personal_layers": {"layers": "output"}}


def test_clients_sample_in_proportion_and_alone(images: phoenix.Images) -> None:
    model = phoenix.train(images, CLIENTS, **PERSONAL)
    assert model.clients == (0, 1)
    samples = model.sample(8)
    assert samples.shape == (8, 1, 8, 8)
    assert samples.dtype == np.uint8
    assert np.array_equal(samples, model.sample(8, seed=5))
    assert not np.array_equal(samples, model.sample(8, seed=6))
    # 30 and 10 images: six and two samples, in the order of the clients.
    assert np.array_equal(samples[:6], model.sample(8, client_id=0)[:6])
    assert np.array_equal(samples[6:], model.sample(8, client_id=1)[6:])
    assert not np.array_equal(samples, model.sample(8, sampling={"num_steps": 3}))
    with pytest.raises(CheckpointError, match="no model of client 7; clients with one: 0, 1"):
        model.sample(8, client_id=7)
    with pytest.raises(SettingsError, match=r"sampling\.num_images: got 0"):
        model.sample(0)
    with pytest.raises(SettingsError, match=r"sampling\.steps: unknown key"):
        model.sample(1, sampling={"steps": 3})


def test_what_is_saved_is_loaded_here_and_in_diffusers(
    images: phoenix.Images, tmp_path: Path
) -> None:
    from diffusers import DDPMPipeline

    model = phoenix.train(images, CLIENTS, **TINY)
    assert model.clients == ()
    again = phoenix.load(model.save(tmp_path / "saved"), device="cpu")
    assert np.array_equal(again.sample(3), model.sample(3))
    pd.testing.assert_frame_equal(again.rounds, model.rounds)
    assert again.rounds[["round", "client_id"]].to_numpy().tolist() == [
        [1, 0], [1, 1], [2, 0], [2, 1]
    ]  # fmt: skip
    assert again.settings["federation"]["num_rounds"] == 2
    assert "partition" not in again.settings
    DDPMPipeline.from_pretrained(tmp_path / "saved", local_files_only=True)
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "# fedavg" in card
    assert "Its samples have not been scored." in card
    with pytest.raises(SettingsError, match="saved exists and is not overwritten"):
        model.save(tmp_path / "saved")
    with pytest.raises(CheckpointError):
        phoenix.load(tmp_path)


def test_a_client_is_saved_alone(images: phoenix.Images, tmp_path: Path) -> None:
    from diffusers import DDPMPipeline

    model = phoenix.train(images, CLIENTS, **PERSONAL)
    model.save(tmp_path / "client", client_id=1)
    DDPMPipeline.from_pretrained(tmp_path / "client", local_files_only=True)
    card = (tmp_path / "client" / "README.md").read_text(encoding="utf-8")
    assert "| client | 1 |" in card
    alone = phoenix.load(tmp_path / "client", device="cpu")
    assert alone.clients == ()
    assert np.array_equal(alone.sample(2), model.sample(2, client_id=1))
    with pytest.raises(DataError, match=r"rounds\.parquet is not a readable table"):
        alone.rounds  # noqa: B018 - reads the file


def test_a_training_that_was_cut_off_goes_on(images: phoenix.Images, tmp_path: Path) -> None:
    told: list[int] = []

    def stop(number: int, means: Mapping[str, float]) -> None:
        told.append(number)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phoenix.train(images, CLIENTS, folder=tmp_path, on_round=stop, **TINY)
    with pytest.raises(CheckpointError, match=r"run\.seed|seed"):
        other = {**TINY, "run": {"seed": 6, "device": "cpu"}}
        phoenix.train(images, CLIENTS, folder=tmp_path, **other)
    resumed = phoenix.train(
        images, CLIENTS, folder=tmp_path, on_round=lambda n, _: told.append(n), **TINY
    )
    assert told == [1, 1, 2]
    undisturbed = phoenix.train(images, CLIENTS, **TINY)
    assert np.array_equal(resumed.sample(4), undisturbed.sample(4))
    assert np.array_equal(phoenix.load(tmp_path, device="cpu").sample(4), resumed.sample(4))


def test_two_trainings_in_one_folder_are_refused_and_leftovers_go(
    images: phoenix.Images, tmp_path: Path
) -> None:
    refused = []

    def train_again(server_round: int, means: Mapping[str, float]) -> None:
        with pytest.raises(BusyError, match=f"^{tmp_path} is in use by process") as caught:
            phoenix.train(images, CLIENTS, folder=tmp_path, **TINY)
        refused.append(str(caught.value))

    phoenix.train(images, CLIENTS, folder=tmp_path, on_round=train_again, **TINY)
    assert len(refused) == 2 and "another folder" in refused[0]
    # As safetensors leaves it where it is killed.
    leftover = tmp_path / "checkpoints/server/.tmpAbCdEf"
    leftover.write_bytes(b"half a file")
    phoenix.train(images, CLIENTS, folder=tmp_path, **TINY)
    assert not leftover.exists()


def test_a_training_without_a_folder_leaves_none(images: phoenix.Images) -> None:
    model = phoenix.train(images, CLIENTS, **TINY)
    root = model.folder.parent
    assert root.is_dir()
    del model
    gc.collect()
    assert not root.exists()


def test_checks_come_before_training(images: phoenix.Images) -> None:
    filtered = {**TINY, "federation": {"pooled": True}, "threshold_filter": {"enabled": True}}
    with pytest.raises(SettingsError, match=r"federation\.pooled puts all data in one place"):
        phoenix.train(images, CLIENTS, **filtered)


def test_scores_say_what_was_skipped(images: phoenix.Images, tmp_path: Path) -> None:
    pixels = {"extractors": ["fid_pixels"], "kid_subset_size": 8}
    real = images.test.images
    scores = phoenix.score(real, images, folder=tmp_path, evaluation=pixels)
    assert scores.num_images == 60
    assert (tmp_path / "references/fid_pixels.safetensors").is_file()
    assert "no label judge" in scores.skipped["inception_score"]
    assert f"fid_pixels                       {scores.scores['fid_pixels']:.4g}" in str(scores)
    assert phoenix.score(real, images, evaluation=pixels).scores == scores.scores


def test_the_default_scores_without_the_extra_and_says_what_is_missing(
    images: phoenix.Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    scores = phoenix.score(images.test.images, images, evaluation={"kid_subset_size": 8})
    assert "fid_pixels" in scores.scores
    assert "the extra `efficientnet`" in scores.skipped["fid_efficientnet_lite0"]
    named = {"extractors": ["fid_efficientnet_lite0"]}
    with pytest.raises(SettingsError, match=re.escape(how_to_install("efficientnet"))):
        phoenix.score(images.test.images, images, folder=tmp_path, evaluation=named)
    assert not list(tmp_path.iterdir())


def test_a_conditional_model_draws_the_classes_that_are_asked_for(labelled: phoenix.Images) -> None:
    conditional = {**TINY, "model": {"unet": UNET.model_dump(), "conditioning": "labels"}}
    model = phoenix.train(labelled, CLIENTS, **conditional)
    assert model.class_names == ("even", "odd")
    planned = model.planned_labels(6)
    assert planned is not None
    assert sorted(planned.tolist()) == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(model.sample(6), model.sample(6, labels=planned.tolist()))
    odd = model.sample(6, labels=["odd"] * 6)
    uniform = model.sample(6, sampling={"class_distribution": [0.0, 1.0]})
    assert np.array_equal(odd, uniform)
    assert not np.array_equal(odd, model.sample(6))
    with pytest.raises(SettingsError, match=r"label 'big' is none of the model's classes"):
        model.sample(1, labels=["big"])
    with pytest.raises(SettingsError, match="1 labels came for 2 images"):
        model.sample(2, labels=[0])


def test_an_unconditional_model_has_no_classes(images: phoenix.Images) -> None:
    model = phoenix.train(images, CLIENTS, **TINY)
    assert (model.class_names, model.planned_labels(3)) == ((), None)
    with pytest.raises(SettingsError, match="the model has no classes"):
        model.sample(1, labels=[0])
