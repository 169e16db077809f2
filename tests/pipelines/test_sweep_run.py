"""A sweep end to end at smoke scale: cells, a failure, going on, tables, tracked runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.pipelines.project_copy import copy_project

SWEEP = {
    "pipelines": ["fedavg", "centralized"],
    "env": "smoke",
    "parameters": {"federation.num_rounds": 1, "centralized.federation.num_rounds": 1},
    "grid": {
        "partition": {
            "iid": {"partition.scheme": "iid"},
            "impossible": {"partition.classes_per_client": 1},
        },
        "run.seed": [0],
    },
    "metrics": ["fid_pixels"],
    "heat_map": {"x": "partition", "y": "arm"},
}
pytestmark = pytest.mark.slow


def sweep(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kedro", "sweep", "tiny"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("sweep") / "project")
    shutil.rmtree(folder / "conf/sweeps")
    (folder / "conf/sweeps").mkdir()
    (folder / "conf/sweeps/tiny.yml").write_text(yaml.safe_dump(SWEEP))
    return folder


def test_a_sweep_runs_reports_a_failure_and_goes_on(project: Path) -> None:
    from mlflow import MlflowClient

    first = sweep(project)
    assert first.returncode == 2, first.stderr
    last = first.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: 1 of 2 cells failed (partition=impossible,seed=0")
    table = pd.read_csv(project / "data/smoke/08_reporting/sweeps/tiny/cells.csv")
    assert table["arm"].tolist() == ["fedavg", "centralized"]
    assert (project / "data/smoke/08_reporting/sweeps/tiny/heat_map_fid_pixels.png").is_file()
    cell = project / "data/smoke/sweeps/tiny/partition=iid,seed=0"
    assert (cell / "07_model_output/fedavg/samples.parquet").is_file()
    assert not (project / "data/smoke/07_model_output").exists()
    assert (project / "data/smoke/sweeps/tiny/06_models/label_judge").is_dir()
    assert not (project / "data/smoke/06_models").exists()

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("phoenix")
    assert experiment is not None
    finished = {
        run.info.run_name: run.data.tags
        for run in client.search_runs([experiment.experiment_id])
        if run.info.status == "FINISHED"
    }
    tags = finished["fedavg partition=iid,seed=0"]
    assert tags["sweep"] == "tiny"
    assert len(tags["sweep.settings"]) == 12
    assert "sweep tiny" in finished

    written = (cell / "done/fedavg.json").stat().st_mtime_ns
    SWEEP["grid"]["partition"]["impossible"] = {"partition.classes_per_client": 4}  # type: ignore[index]
    (project / "conf/sweeps/tiny.yml").write_text(yaml.safe_dump(SWEEP))
    second = sweep(project)
    assert second.returncode == 0, second.stderr
    assert "partition=iid,seed=0: done already" in second.stderr
    assert (cell / "done/fedavg.json").stat().st_mtime_ns == written
    assert len(pd.read_csv(project / "data/smoke/08_reporting/sweeps/tiny/cells.csv")) == 4
