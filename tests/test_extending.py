"""The examples of docs/extending.md: a folder outside of the project, and a run that uses it."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import phoenix_pipeline as phoenix
from phoenix_pipeline.config import ArmSettings, ModelConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.json_files import read_json
from phoenix_pipeline.registry import KINDS, _import, foreign_names, load_extensions, register
from tests.pipelines.warm_command import run_warm

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "phoenix_pipeline"
# SCAFFOLD as somebody else would write it: its own file, under another name, and nothing beside it.
SCAFFOLD = (SOURCES / "strategies" / "scaffold.py").read_text(encoding="utf-8")
ARMS: dict[str, dict[str, Any]] = {
    "of_mine": {
        "federation": {
            "strategies": {"slow_server": {"part": 0.7}, "my_scaffold": {}},
            "aggregation": {"rule": "plain_mean"},
            "compression": {"up": {"codec": "bfloat16"}},
            "server_optimizer": {"name": "signs"},
        },
        "sampling": {"sampler": "deis"},
    },
    "by_vae": {
        "model": {"family": "vae", "vae": {"hidden": "auto", "latent": 4}},
        "personal_layers": {"layers": ["decoder.2"]},
        "federation": {"strategies": {"alignment": {}}, "resume": False},
    },
}
SHARED = "partition.scheme=blocks,evaluation.extractors=[fid_rows],privacy_audit.reconstructions=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the modules, and with a copy of ``conf`` that has blocks more."""
    folder = tmp_path_factory.mktemp("of_mine")
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    (folder / "my_components.py").write_text(code, encoding="utf-8")
    renamed = SCAFFOLD.replace('str] = "scaffold"', 'str] = "my_scaffold"')
    assert renamed != SCAFFOLD
    added = "\n\nimport phoenix_pipeline\n\nphoenix_pipeline.register('strategies', 'my_scaffold', "
    (folder / "my_scaffold.py").write_text(f"{renamed}{added}Scaffold)\n", encoding="utf-8")
    shutil.copytree(ROOT / "conf", folder / "conf")
    modules = {"extensions": ["my_components", "my_scaffold"]}
    block = yaml.safe_dump({"run": modules, "arms": ARMS})
    (folder / "conf" / "smoke" / "parameters_of_mine.yml").write_text(block, encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str) -> None:
    done = run_warm(
        ROOT,
        ["--env", "smoke", "--conf-source", str(folder / "conf"), *arguments],
        {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{folder}", "PHOENIX_TRACKING": "0"},
        "phoenix_pipeline",
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """Return the data root of the smoke job of both arms and their comparison."""
    data = folder / "data"
    parameters = f"{SHARED},data_root={data}"
    run(folder, "--pipelines", "of_mine,by_vae,privacy_audit,comparison", "--params", parameters)
    return data


def test_every_kind_of_component_is_added_and_no_file_of_ours_knows_it(folder: Path) -> None:
    code = "".join((folder / f"{name}.py").read_text() for name in ("my_components", "my_scaffold"))
    added = re.findall(r"register\(\s*['\"](\w+)['\"], ['\"](\w+)['\"]", code)
    assert {kind for kind, _ in added} == set(KINDS)
    assert {"FEATURE_SPACES", "SCORES"} <= set(re.findall(r"^([A-Z_]+) = ", code, re.MULTILINE))
    names = {name for _, name in added} | {"fid_rows", "offset_", *ARMS}
    ours = "".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))
    assert [name for name in sorted(names) if re.search(rf"['\"]{name}['\"]", ours)] == []


def test_components_of_an_arm_outside_run_together(data: Path) -> None:
    metrics = read_json(data / "08_reporting/of_mine/metrics.json")
    assert metrics["scores"]["offset_rows"] >= 0.0
    assert metrics["scores"]["fid_rows"] > 0.0
    assert metrics["conditions"]["sampler"] == "deis"
    said = json.dumps(read_json(data / "06_models/of_mine/phoenix.json")["trained_with"])
    named = ("slow_server", "my_scaffold", "plain_mean", "bfloat16", "signs")
    assert all(name in said for name in named)
    rounds = pd.read_parquet(data / "06_models/of_mine/rounds.parquet")
    assert (rounds["status"] == "ok").all()
    # SCAFFOLD doubles both ways; half precision up, whole weights down.
    assert rounds["bytes_up"].sum() < 0.6 * rounds["bytes_down"].sum()
    clients = pd.read_parquet(data / "03_primary/partition.parquet")
    assert clients.sort_values("image_index")["client_id"].is_monotonic_increasing


def test_a_family_outside_is_trained_averaged_drawn_exported_and_loaded(data: Path) -> None:
    description = read_json(data / "06_models/by_vae/phoenix.json")
    # Settled by the side of the images, 8 pixels.
    assert description["settings"]["model"]["vae"] == {"hidden": 64, "latent": 4}
    assert description["settings"]["personal_layers"] == ["decoder.2"]
    assert any("decoder.2" in sentence for sentence in description["disclosure"])
    rounds = pd.read_parquet(data / "06_models/by_vae/rounds.parquet")
    loss = rounds[rounds["round"] > 0].groupby("round")["loss"].mean()
    assert (rounds["status"] == "ok").all() and loss.iloc[-1] < loss.iloc[0]
    metrics = read_json(data / "08_reporting/by_vae/metrics.json")
    assert metrics["conditions"]["sampler"] == "generator"
    assert metrics["scores"]["fid_rows"] > 0.0
    audit = read_json(data / "08_reporting/by_vae/privacy.json")
    assert 0.0 <= audit["scores"]["membership_auc_elbo"] <= 1.0
    assert "membership_auc_loss" not in audit["scores"]
    table = pd.read_csv(data / "08_reporting/comparison.csv").set_index("arm")
    assert set(ARMS) <= set(table.index) and table.loc[list(ARMS), "fid_rows"].notna().all()
    assert "by_vae" in (data / "08_reporting/comparison.html").read_text(encoding="utf-8")


def test_a_family_outside_in_python(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PHOENIX_EXTENSIONS", "")
    load_extensions(["my_components"])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    images = phoenix.Images(phoenix.ImageSet(pixels[:32]), phoenix.ImageSet(pixels[32:]))
    model = {"family": "vae", "vae": {"hidden": 16}}
    work = {"num_rounds": 1, "local_work": {"unit": "steps", "amount": 2}}
    clients = phoenix.partition(images, scheme="iid", num_clients=2, min_images_per_client=1)
    trained = phoenix.train(images, clients, arm="fedavg", model=model, federation=work)
    drawn = trained.sample(6)
    assert drawn.shape == (6, 1, 8, 8)
    # One seed per image, whatever the batch.
    assert np.array_equal(drawn, trained.sample(6, sampling={"batch_size": 2}))
    trained.save(tmp_path / "vae")
    assert np.array_equal(phoenix.load(tmp_path / "vae").sample(6), drawn)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": {"family": "vea"}}, "'diffusion', 'dcgan' or 'vae'"),
        ({"model": {"vea": {}}}, r"model\.vea\s+Extra inputs are not permitted"),
        ({"model": {"vae": {"hiden": 3}}}, r"model\.vae\.hiden"),
        ({"model": {"vae": {"hidden": 0}}}, r"model\.vae\.hidden\s+Input should be greater"),
    ],
)
def test_settings_of_a_family_outside_are_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PHOENIX_EXTENSIONS", "")
    load_extensions(["my_components"])
    with pytest.raises(ValueError, match=said):
        ArmSettings.model_validate(changed)
    model = ModelConfig.model_validate({"family": "vae"})
    assert ModelConfig.model_validate_json(model.model_dump_json()) == model
    assert model.model_dump()["vae"] == {"hidden": 64, "latent": 8}


def test_what_is_registered_is_known_at_once() -> None:
    register("codecs", "of_this_test", lambda config: None)
    assert "of_this_test" in foreign_names("codecs")
    with pytest.raises(SettingsError, match=f"of the kinds {', '.join(KINDS)}; got 'tarot'"):
        register("tarot", "x", None)


def test_a_module_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOENIX_EXTENSIONS", "")
    _import.cache_clear()
    with pytest.raises(SettingsError, match=r"run\.extensions names no_such_module, .*PYTHONPATH"):
        load_extensions(["no_such_module"])
