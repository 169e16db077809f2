"""What is wrong with a sweep's file is said in one line, before anything runs."""

from pathlib import Path

import pytest
import yaml

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.sweeps.plan import prepare_sweep
from phoenix_pipeline.framework.sweeps.settings import load_sweep

FRONTIER = {"axis": "training.learning_rate", "baseline": "0.1", "scores": ["fid_pixels"]}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"pipeline": ["fedavg"]}, ["pipeline: unknown key", "did you mean pipelines?"]),
        ({"pipelines": ["fedavgg"]}, ["no arm fedavgg", "did you mean fedavg?"]),
        ({"pipelines": []}, ["pipelines"]),
        ({"grid": {"run.seed": []}}, ["grid.run.seed: has no values"]),
        ({"grid": {"run.seed": [1, 2, 1]}}, ["grid.run.seed: has a value twice"]),
        ({"grid": {"arm": [1]}}, ["grid.arm: this name is taken"]),
        ({"grid": {"run.seed": 3}}, ["grid"]),
        ({"heat_map": {"x": "beta", "y": "arm"}}, ["heat_map.x: beta is no axis"]),
        (
            {"frontier": {"axis": "run.seed", "baseline": "0", "scores": ["fid_pixels"]}},
            ["frontier.axis: run.seed is no axis"],
        ),
        (
            {"frontier": {**FRONTIER, "baseline": "0.2"}},
            ["frontier.baseline: 0.2 is no value of it"],
        ),
        ({"frontier": {**FRONTIER, "scores": ["recall_pixels"]}}, ["frontier.scores: recall"]),
        ({"grid": {"training.learning_rate": ["x"]}, "heat_map": None}, ["learning_rate: got 'x'"]),
        ({"grid": {"trainin.x": [1]}, "heat_map": None}, ["trainin: unknown parameter"]),
        ({"parameters": {"run.seed": 3}}, ["run.seed is set by parameters or by another axis"]),
        ({"parameters": {"training": 3}}, ["training has a value of its own"]),
        (
            {"parameters": {"federation.checkpoint_every": 2}},
            ["does not reach the arm centralized", "centralized.federation.checkpoint_every"],
        ),
    ],
)
def test_a_mistake_is_one_line(project: Path, write_sweep, changes: dict, parts: list[str]) -> None:
    write_sweep(**changes)
    with pytest.raises(SettingsError) as caught:
        prepare_sweep(project, "grid")
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_an_unknown_sweep_is_named_with_those_there_are(project: Path, write_sweep) -> None:
    write_sweep()
    with pytest.raises(SettingsError, match=r"no sweep 'gird'.*did you mean grid"):
        load_sweep(project / "conf", "gird")


@pytest.mark.parametrize("text", ["grid: [", "- a", ""])
def test_a_file_that_is_no_mapping_is_refused(project: Path, text: str) -> None:
    (project / "conf/sweeps").mkdir()
    (project / "conf/sweeps/bad.yml").write_text(text)
    with pytest.raises(SettingsError, match=r"conf/sweeps/bad\.yml"):
        load_sweep(project / "conf", "bad")


def test_an_arms_own_setting_in_the_sweep_makes_the_shared_one_legal(
    project: Path, write_sweep
) -> None:
    both = {"federation.checkpoint_every": 2, "centralized.federation.checkpoint_every": 3}
    write_sweep(parameters=both)
    assert len(prepare_sweep(project, "grid").cells) == 4


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "conf/sweeps").glob("*.yml")))
def test_the_ready_made_sweeps_are_valid(path: Path) -> None:
    config = load_sweep(path.parents[1], path.stem)
    assert len(config.grid["run.seed"]) >= 3


def test_all_lies_in_the_data_folder_of_a_run_but_what_a_sweep_may_share() -> None:
    catalog = Path(__file__).parents[3] / "conf/base/catalog.yml"
    entries = yaml.safe_load(catalog.read_text())
    paths = {
        name: entry["filepath"] for name, entry in entries.items() if "filepath" in (entry or ())
    }
    assert len(paths) > 15
    outside = {path for path in paths.values() if not path.startswith("${_root}/")}
    assert outside == {
        "${_references}/06_models/label_judge",
        "${_references}/04_feature/references",
    }
    assert entries["_references"] == "${runtime_params:references_root, ${_root}}"
