"""Which cells run: those that are missing; after a kill, a failure, or a change of settings."""

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.framework.sweeps.plan import prepare_sweep
from phoenix_pipeline.framework.sweeps.results import collect, publish, track
from phoenix_pipeline.framework.sweeps.runner import run_sweep

from .conftest import Arithmetic

BOTH = ("fedavg", "centralized")


@pytest.fixture
def sweep(project: Path, write_sweep):
    write_sweep()
    return prepare_sweep(project, "grid")


def test_all_cells_run_once_and_are_skipped_the_next_time(sweep) -> None:
    execute = Arithmetic(sweep)
    progress = run_sweep(sweep, execute)
    assert execute.calls == [(cell.name, BOTH) for cell in sweep.cells]
    assert progress.ran == [cell.name for cell in sweep.cells]
    again = run_sweep(sweep, execute)
    assert again.ran == []
    assert again.skipped == progress.ran
    assert len(execute.calls) == 4


def test_checkpoints_go_when_a_cell_is_done(sweep) -> None:
    run_sweep(sweep, Arithmetic(sweep))
    assert not list(sweep.data.rglob("checkpoints"))
    assert len(list(sweep.data.rglob("rounds.parquet"))) == 8


def test_a_killed_sweep_goes_on_where_it_was(sweep) -> None:
    execute = Arithmetic(sweep)

    def killed(cell, arms):
        if cell == sweep.cells[2]:
            raise KeyboardInterrupt
        return execute(cell, arms)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, killed)
    assert len(execute.calls) == 2
    progress = run_sweep(sweep, execute)
    assert progress.ran == [cell.name for cell in sweep.cells[2:]]
    assert [name for name, _ in execute.calls] == [cell.name for cell in sweep.cells]


def test_a_failed_arm_costs_only_itself(sweep) -> None:
    broken = sweep.cells[1].name
    execute = Arithmetic(sweep, broken=((broken, "centralized"),))
    progress = run_sweep(sweep, execute)
    assert progress.failed == {broken: "centralized: loss is nan"}
    assert len(progress.ran) == 3
    assert sweep.missing(sweep.cells[1]) == ("centralized",)
    assert len(collect(sweep)) == 7
    repaired = Arithmetic(sweep)
    assert run_sweep(sweep, repaired).ran == [broken]
    assert repaired.calls == [(broken, ("centralized",))]


def test_changed_settings_run_again_for_the_arms_that_they_touch(
    sweep, project: Path, write_sweep
) -> None:
    run_sweep(sweep, Arithmetic(sweep))
    write_sweep(parameters={"sampling.num_images": 32, "centralized.sampling.num_steps": 5})
    changed = prepare_sweep(project, "grid")
    execute = Arithmetic(changed)
    run_sweep(changed, execute)
    assert execute.calls == [(cell.name, ("centralized",)) for cell in changed.cells]


def test_a_larger_grid_runs_only_what_is_new(sweep, project: Path, write_sweep) -> None:
    run_sweep(sweep, Arithmetic(sweep))
    write_sweep(grid={"training.learning_rate": [0.1, 0.01], "run.seed": [0, 1, 2]})
    larger = prepare_sweep(project, "grid")
    assert run_sweep(larger, Arithmetic(larger)).ran == [
        "learning_rate=0.1,seed=2",
        "learning_rate=0.01,seed=2",
    ]


def test_a_deleted_result_is_made_again(sweep) -> None:
    run_sweep(sweep, Arithmetic(sweep))
    sweep.folder(sweep.cells[0]).metrics_file("fedavg").unlink()
    assert sweep.missing(sweep.cells[0]) == ("fedavg",)


def test_a_metric_that_no_cell_has_is_named(project: Path, write_sweep) -> None:
    write_sweep(metrics=["fid_pixel"])
    sweep = prepare_sweep(project, "grid")
    with pytest.raises(SettingsError, match=r"fid_pixel is no score of fedavg.*fid_pixels"):
        run_sweep(sweep, Arithmetic(sweep))


def test_the_table_has_a_row_per_cell_and_arm(sweep) -> None:
    with pytest.raises(DataError, match="no result yet"):
        collect(sweep)
    run_sweep(sweep, Arithmetic(sweep))
    table = collect(sweep)
    assert len(table) == 8
    first = table.iloc[0]
    assert (first["cell"], first["arm"]) == (sweep.cells[0].name, "fedavg")
    assert first["training.learning_rate"] == 0.1
    assert first["fid_pixels"] == pytest.approx(10)
    assert first["bytes_total"] == 11


def test_a_frontier_is_written_for_each_arm_once_its_baseline_is_done(
    project: Path, write_sweep
) -> None:
    shape = {"axis": "training.learning_rate", "baseline": "0.1", "scores": ["fid_pixels"]}
    write_sweep(frontier=shape, heat_map=None)
    sweep = prepare_sweep(project, "grid")
    run_sweep(sweep, Arithmetic(sweep))
    table = collect(sweep)
    tables = ["cells.csv", "summary.csv", "summary.tex"]
    files = publish(sweep, table)
    kinds = [
        f"frontier_{arm}.{kind}" for arm in ("fedavg", "centralized") for kind in ("csv", "png")
    ]
    assert [file.name for file in files] == [*tables, *kinds]
    # Scores are the learning rate x 100 + the seed: 10.5 and 1.5 on average.
    frontier = pd.read_csv(files[3]).set_index("training.learning_rate")
    assert frontier.loc[0.01, "fid_pixels_ratio"] == pytest.approx(1.5 / 10.5)
    unfinished = publish(sweep, table[table["training.learning_rate"] != 0.1])
    assert [file.name for file in unfinished] == tables


def test_tables_and_heat_maps_are_written_and_tracked(
    sweep, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'own.db'}")
    (project / "conf/base/mlflow.yml").write_text("{enabled: true, experiment: tiny}\n")
    run_sweep(sweep, Arithmetic(sweep))
    files = publish(sweep, collect(sweep))
    tables = ["cells.csv", "summary.csv", "summary.tex"]
    assert [file.name for file in files] == [*tables, "heat_map_fid_pixels.png"]
    assert "FID (pixels)" in files[2].read_text(encoding="utf-8")
    summary = pd.read_csv(files[1]).set_index(["training.learning_rate", "arm"])
    assert summary.loc[(0.01, "fedavg"), "runs"] == 2
    assert summary.loc[(0.01, "fedavg"), "fid_pixels"] == pytest.approx(1.5)
    assert summary.loc[(0.01, "fedavg"), "fid_pixels_std"] == pytest.approx(0.5**0.5)
    track(sweep, files)
    client = MlflowClient(f"sqlite:///{project / 'own.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "sweep grid"
    assert run.info.status == "FINISHED"
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {f.name for f in files}
