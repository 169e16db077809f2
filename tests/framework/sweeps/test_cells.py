"""Grids become cells; a cell's hash follows its settings and nothing else."""

from pathlib import Path

import pytest

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.sweeps.cells import arm_digests, digest, expand, nest
from phoenix_pipeline.framework.sweeps.plan import prepare_sweep
from phoenix_pipeline.framework.sweeps.settings import SweepConfig

NAMED = {
    "iid": {"partition.scheme": "iid"},
    "k2": {"partition.scheme": "pathological", "partition.classes_per_client": 2},
}


def grid(**axes: object) -> SweepConfig:
    return SweepConfig(pipelines=("fedavg",), grid=axes, metrics=("fid_pixels",))


def test_every_combination_is_a_cell_the_last_axis_fastest() -> None:
    cells = expand(grid(**{"shared_pool.beta": [0.1, 0.2], "run.seed": [0, 1]}))
    assert [cell.name for cell in cells] == [
        "beta=0.1,seed=0",
        "beta=0.1,seed=1",
        "beta=0.2,seed=0",
        "beta=0.2,seed=1",
    ]
    assert cells[1].parameters == {"shared_pool": {"beta": 0.1}, "run": {"seed": 1}}
    assert cells[1].values == {"shared_pool.beta": 0.1, "run.seed": 1}


def test_a_named_value_sets_several_settings_together() -> None:
    cells = expand(grid(partition=NAMED))
    assert [cell.name for cell in cells] == ["partition=iid", "partition=k2"]
    assert cells[0].parameters == {"partition": {"scheme": "iid"}}
    assert cells[1].parameters == {"partition": {"scheme": "pathological", "classes_per_client": 2}}
    assert cells[1].values == {"partition": "k2"}


def test_names_are_safe_in_a_path_and_tell_equal_last_parts_apart() -> None:
    cells = expand(
        grid(**{"a.layers": [["up/1", "out"], None, "x" * 200], "b.layers": [True]}),
    )
    assert cells[0].name == "a.layers=up_1+out,b.layers=true"
    assert cells[1].name == "a.layers=null,b.layers=true"
    assert len(cells[2].name) < 140
    assert cells[0].parameters["a"]["layers"] == ["up/1", "out"]


def test_names_that_collide_are_refused() -> None:
    with pytest.raises(SettingsError, match="same name"):
        expand(grid(**{"a.layers": ["x/1", "x:1"]}))


def test_nesting_refuses_a_value_that_is_also_a_block() -> None:
    assert nest({"a.b": 1, "a.c": 2}) == {"a": {"b": 1, "c": 2}}
    with pytest.raises(SettingsError, match="a has a value of its own"):
        nest({"a": 1, "a.b": 2})
    with pytest.raises(SettingsError, match="a: is set twice"):
        nest({"a.b": 2, "a": 1})


def test_the_hash_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_an_arms_hash_changes_with_its_own_settings_only(project: Path) -> None:
    arms = ("fedavg", "centralized")
    base = arm_digests(project / "conf", None, {}, arms)
    own = arm_digests(project / "conf", None, {"fedavg": {"training": {"batch_size": 8}}}, arms)
    assert own["fedavg"] != base["fedavg"]
    assert own["centralized"] == base["centralized"]
    for shared in ({"run": {"seed": 1}}, {"train_images": "mine"}):
        other = arm_digests(project / "conf", None, shared, arms)
        assert all(other[arm] != base[arm] for arm in arms)


def test_the_hash_follows_the_configuration_files_and_the_environment(
    project: Path, write_sweep
) -> None:
    write_sweep()
    before = prepare_sweep(project, "grid")
    assert prepare_sweep(project, "grid").digests == before.digests
    smoke = prepare_sweep(project, "grid", "smoke")
    assert smoke.name == "grid-smoke"
    assert smoke.digests != before.digests
    (project / "conf/base/parameters_federation.yml").write_text("federation: {num_rounds: 6}\n")
    after = prepare_sweep(project, "grid")
    assert all(after.digests[name] != old for name, old in before.digests.items())
