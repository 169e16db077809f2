"""Where results go and images come from: environments lie apart, folders have any name."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from phoenix_pipeline.cli import run
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.project import open_config


@pytest.mark.parametrize(
    ("env", "params", "root"),
    [
        (None, {}, "data"),
        ("local", {}, "data"),
        ("base", {}, "data"),
        ("smoke", {}, "data/smoke"),
        ("smoke", {"data_root": "mine"}, "mine"),
        ("smoke", {"data_root": None}, "data/smoke"),
        (None, {"data_root": 2024}, "2024"),
        (None, {"data_root": "~/phoenix"}, "/home/ann/phoenix"),
    ],
)
def test_each_environment_has_a_data_root_of_its_own(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    env: str | None,
    params: dict[str, Any],
    root: str,
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert open_config(project, env, params).data_root == root


def test_the_catalog_follows(project: Path) -> None:
    (project / "conf/base/catalog.yml").write_text(
        'summary:\n  type: x\n  filepath: "${runtime_params:data_root, ${globals:data_root}}/s"\n'
    )
    paths = [
        open_config(project, env, params)["catalog"]["summary"]["filepath"]
        for env, params in ((None, {}), ("smoke", {}), ("smoke", {"data_root": 7}))
    ]
    assert paths == ["data/s", "data/smoke/s", "7/s"]


def test_globals_decide_for_all_environments_but_those_that_name_their_own(project: Path) -> None:
    (project / "conf/base/globals.yml").write_text("data_root: ~/results\ntrain_images: 2024\n")
    (project / "conf/other/globals.yml").write_text("data_root: elsewhere\n")
    home = str(Path.home())
    assert open_config(project).data_root == f"{home}/results"
    assert open_config(project, "smoke").data_root == f"{home}/results/smoke"
    assert open_config(project, "other").data_root == "elsewhere"
    assert open_config(project)["globals"]["train_images"] == "2024"


@pytest.mark.parametrize("name", ["data_root", "train_images", "test_images"])
def test_an_address_is_no_folder(project: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name}: got s3://bucket/x, .*mount") as caught:
        open_config(project, None, {name: "s3://bucket/x"})
    assert "(--params)" in str(caught.value)
    assert not (project / "s3:").exists()


def test_a_home_that_nobody_knows_is_said(project: Path) -> None:
    with pytest.raises(SettingsError, match="home folder of ~nobody-at-all is not known"):
        open_config(project, None, {"data_root": "~nobody-at-all/x"})


@pytest.mark.parametrize(
    ("written", "folder"),
    [("2024", "2024"), ("007", "007"), ("1e3", "1e3"), ("true", "true"), ("results", "results")],
)
def test_a_folder_keeps_the_name_that_was_written(project: Path, written: str, folder: str) -> None:
    catalog = project / "conf/base/catalog.yml"
    placed = '"${runtime_params:data_root}/summary.json"'
    catalog.write_text(catalog.read_text().replace("data/summary.json", placed))
    result = CliRunner().invoke(run, ["--pipelines", "shared", "--params", f"data_root={written}"])
    assert result.exit_code == 0, result.stderr
    assert (project / folder / "summary.json").is_file()
