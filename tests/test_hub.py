"""Models by their names on the hub: from its cache, never from the network unless allowed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.config import ArmSettings
from phoenix_pipeline.diffusion.export import export_pipeline
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.own_models import OwnModels
from phoenix_pipeline.hub import find_folder
from tests.federated.tiny import UNET, make_images, settings
from tests.pipelines.test_check_arm import RUN

NAME, REVISION = "someone/digits", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's library keeps it, with one model in it."""
    hub = tmp_path / "hub"
    model = hub / "models--someone--digits"
    snapshot = model / "snapshots" / REVISION
    export_pipeline(snapshot, build_unet(UNET, 1, 8, 77), settings().model.noise, {})
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    # Nothing answers there.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    return snapshot


def arm(start: str, **model: object) -> ArmSettings:
    return ArmSettings(model={"unet": UNET, "start_from": start, **model})


@pytest.mark.parametrize("name", [NAME, f"{NAME}@{REVISION}"])
def test_the_cache_serves_offline(cached: Path, name: str) -> None:
    assert find_folder(name, "model.start_from") == cached
    start = ArmModel.of(make_images(), arm(name), RUN).load_start()
    assert start is not None
    assert (start["conv_in.weight"] == build_unet(UNET, 1, 8, 77).conv_in.weight).all()
    assert OwnModels.of(arm(name, lora={"rank": 1}).model).base == cached


@pytest.mark.parametrize("name", ["someone/else", f"{NAME}@{'f' * 40}"])
def test_what_the_cache_lacks_is_refused_in_one_line(cached: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"set model\.allow_download: true") as refused:
        find_folder(name, "model.start_from")
    assert "\n" not in str(refused.value)


def test_a_hub_that_does_not_answer_is_told_in_one_line(cached: Path) -> None:
    with pytest.raises(SettingsError, match="the download failed") as refused:
        find_folder("someone/else", "model.autoencoder", allow_download=True)
    assert "\n" not in str(refused.value)
    assert "model.autoencoder is someone/else" in str(refused.value)
    assert find_folder(NAME, "model.start_from", allow_download=True) == cached


def test_folders_are_never_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "phoenix").mkdir(parents=True)
    for path in ("data/phoenix", "data/06_models/phoenix", "phoenix", str(tmp_path)):
        assert find_folder(path, "model.start_from") == Path(path)


def test_without_a_name_the_hubs_library_is_not_loaded() -> None:
    code = (
        "import json, sys; from phoenix_pipeline.hub import find_folder; "
        "find_folder('/nowhere', 'model.start_from'); "
        "print(json.dumps('huggingface_hub' in sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) is False
