"""What a site would send: the very arrays of a real round, and nothing left behind."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from phoenix_pipeline.api.dry_run import ARRAYS_FILE, REPORT_FILE, _job, dry_run, format_report
from phoenix_pipeline.checkpoints import load_tensors
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.own_models import NO_MODELS, OwnModels
from phoenix_pipeline.federated.wire import join
from phoenix_pipeline.images import ImageSet, write_images
from tests.federated.adapted import make_base
from tests.federated.tiny import UNET, federate
from tests.latents.tiny import make_autoencoder

GIVEN = {
    "images": {"image_size": 8, "channels": 1},
    "run": {"seed": 5, "device": "cpu"},
    "model": {"unet": UNET.model_dump(mode="json")},
    "training": {"batch_size": 6, "learning_rate": 0.001, "optimizer_state": "reset"},
    "federation": {"local_work": {"unit": "steps", "amount": 7}},
}


def test_both_blocks_of_an_arm_count_setting_by_setting_as_in_conf() -> None:
    arms = {"fedavg": {"training": {"batch_size": 3, "lr_warmup": 0.5}}}
    told = _job(
        {**GIVEN, "arms": arms, "fedavg": {"training": {"batch_size": 4}}}, "fedavg", NO_MODELS
    )
    training = told.settings.training
    assert (training.batch_size, training.lr_warmup, training.learning_rate) == (4, 0.5, 0.001)


@pytest.fixture
def node(tmp_path: Path) -> str:
    """A site with 20 images."""
    pixels = np.random.default_rng(1).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    write_images(ImageSet(pixels), tmp_path / "images.parquet")
    state = tmp_path / "state"
    return f'client-id=0 data="{tmp_path}/images.parquet" state-folder="{state}" device="cpu"'


def test_adapters_are_rehearsed_on_the_base_of_the_site(tmp_path: Path, node: str) -> None:
    pytest.importorskip("peft")
    lora = {"rank": 2, "target_modules": ["conv1"]}
    model = {**GIVEN["model"], "lora": lora, "start_from": "/at/the/coordinator"}
    given = {**GIVEN, "model": model}
    with pytest.raises(SettingsError, match="set base-model"):
        dry_run(node, tmp_path / "out", given)
    base = make_base(tmp_path / "base", 77)
    dry_run(f'{node} base-model="{base}"', tmp_path / "out", given)
    sent, _ = load_tensors(tmp_path / "out" / ARRAYS_FILE)
    expected = _job(given, "fedavg", OwnModels(base)).settings.build_network().state_dict()
    assert sent["float32"].numel() == sum(array.numel() for array in expected.values())


def test_latents_are_rehearsed_with_the_autoencoder_of_the_site(tmp_path: Path, node: str) -> None:
    given = {**GIVEN, "model": {**GIVEN["model"], "autoencoder": "/at/the/coordinator"}}
    with pytest.raises(SettingsError, match="set autoencoder in the node configuration"):
        dry_run(node, tmp_path / "out", given)
    own = make_autoencoder(tmp_path / "autoencoder")
    dry_run(f'{node} autoencoder="{own}"', tmp_path / "out", given)
    sent, _ = load_tensors(tmp_path / "out" / ARRAYS_FILE)
    expected = (
        _job(given, "fedavg", OwnModels(autoencoder=own)).settings.build_network().state_dict()
    )
    assert sent["float32"].numel() == sum(array.numel() for array in expected.values())


def test_the_arrays_are_those_of_a_round(tmp_path: Path, node: str) -> None:
    report = dry_run(node, tmp_path / "out", GIVEN)
    sent, _ = load_tensors(tmp_path / "out" / ARRAYS_FILE)

    images = np.random.default_rng(1).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    trained = federate(
        tmp_path / "run",
        rounds=1,
        images=ImageSet(images),
        client_images=pd.DataFrame({"client_id": 0, "image_index": range(20)}),
        settings=_job(GIVEN, "fedavg", NO_MODELS).settings,
        local_work={"unit": "steps", "amount": 1},
    )
    assert list(sent) == ["float32"]
    torch.testing.assert_close(
        sent["float32"], join(trained.raw).vectors["float32"], rtol=0, atol=3e-5
    )
    introduction, answer = report["answers"]
    assert introduction["numbers"] == {"client-id": 0, "num-examples": 20, "releases": 0}
    assert answer["numbers"]["images-trained"] == 6
    assert answer["arrays"] == {"float32": {"dtype": "float32", "bytes": sent["float32"].nbytes}}
    assert answer["bytes"] == trained.rounds["bytes_up"].sum()
    assert report["made_of"] == {name: list(t.shape) for name, t in trained.raw.items()}
    assert json.loads((tmp_path / "out" / REPORT_FILE).read_text()) == report
    assert not (tmp_path / "state").exists()


def test_layers_that_stay_are_no_part_of_it(tmp_path: Path, node: str) -> None:
    personal = {**GIVEN, "personal_layers": {"layers": ["conv_out"]}}
    report = dry_run(node, tmp_path / "out", personal)
    assert set(report["personal_layers"]) == {"conv_out.weight", "conv_out.bias"}
    assert not set(report["made_of"]) & set(report["personal_layers"])
    assert "2 arrays stay here: conv_out" in format_report(report)
    released = dry_run(f"{node} release-personal-layers=true", tmp_path / "out", personal)
    assert "2 arrays go to the server after the last round" in format_report(released)


def test_compressed_answers_are_as_small_as_they_would_be(tmp_path: Path, node: str) -> None:
    codec = {"federation": {**GIVEN["federation"], "compression": {"up": {"codec": "int8"}}}}
    plain = dry_run(node, tmp_path / "out", GIVEN)["answers"][1]["bytes"]
    assert dry_run(node, tmp_path / "out", {**GIVEN, **codec})["answers"][1]["bytes"] < plain / 2


def test_what_the_site_does_not_allow_is_told(tmp_path: Path, node: str) -> None:
    with pytest.raises(FederationError, match="would not take part: SiteRefusal: "):
        dry_run(f"{node} min-noise-multiplier=1.0", tmp_path / "out", GIVEN)
    assert not (tmp_path / "out").exists()


def test_a_site_alone_is_in_no_pair_and_sends_all_that_it_may_be_asked_for(
    tmp_path: Path, node: str
) -> None:
    pairs = {
        "compression": {"partial_update": "usplit"},
        "aggregation": {"clip_norm": {"bound": None}},
    }
    plain = dry_run(node, tmp_path / "out", GIVEN)["made_of"]
    given = {**GIVEN, "federation": {**GIVEN["federation"], **pairs}}
    (_, answer) = dry_run(node, tmp_path / "out", given)["answers"]
    sent = sum(array["bytes"] for array in answer["arrays"].values()) // 4
    assert sent == sum(math.prod(shape) for shape in plain.values())


def test_what_the_coordinator_could_not_begin_is_refused(tmp_path: Path, node: str) -> None:
    private = {"enabled": True, "noise_multiplier": 1.0}
    given = {**GIVEN, "federation": {**GIVEN["federation"], "differential_privacy": private}}
    assert dry_run(node, tmp_path / "out", given)["answers"]
    given["threshold_filter"] = {"enabled": True}
    with pytest.raises(SettingsError, match=r"threshold_filter.enabled: scores of clients are"):
        dry_run(node, tmp_path, given)


@pytest.mark.parametrize(
    ("given", "named"),
    [({"image": {}}, "image;"), ({**GIVEN, "images": {}}, "images.image_size")],
)
def test_settings_that_say_too_little_are_refused(
    tmp_path: Path, node: str, given: dict, named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        dry_run(node, tmp_path, given)


def test_the_command_ends_with_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "phoenix_pipeline.api.dry_run", "--node-config", "data=1"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: ")


def test_a_conditional_model_learns_the_classes_that_the_coordinator_names(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    images = ImageSet(pixels, np.array([0, 1] * 3), ("cat", "dog"))
    write_images(images, tmp_path / "images.parquet")
    node = f'client-id=0 data="{tmp_path}/images.parquet" state-folder="{tmp_path}/s" device="cpu"'
    model = {**GIVEN["model"], "conditioning": "labels"}
    given = {**GIVEN, "model": model, "class_names": ["bird", "cat", "dog"]}
    report = dry_run(node, tmp_path / "out", given)
    # Three classes, and one for images without.
    assert report["made_of"]["class_embedding.weight"][0] == 4
    with pytest.raises(FederationError, match="dog"):
        dry_run(node, tmp_path / "out", {**given, "class_names": ["cat"]})


def test_what_a_strategy_adds_is_shown(tmp_path: Path, node: str) -> None:
    scaffold = {"federation": {**GIVEN["federation"], "strategies": {"scaffold": {}}}}
    plain, more = (
        dry_run(node, tmp_path / "out", given)["answers"][1] for given in (GIVEN, GIVEN | scaffold)
    )
    # How the mean of its steps changed, as large as the weights.
    assert more["bytes"] - plain["bytes"] >= 0.9 * plain["arrays"]["float32"]["bytes"]
