"""Two runs in one data folder: the second is refused before it computes or records anything."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from phoenix_pipeline.cli import run
from phoenix_pipeline.file_locks import Locks
from phoenix_pipeline.framework.run_lock import FOLDER


@pytest.fixture
def ready(project: Path) -> Path:
    for split in ("train", "test"):
        (project / f"data/01_raw/{split}.parquet").write_text("never opened")
    (project / "conf/base/mlflow.yml").write_text("experiment: tiny\n")
    return project


@pytest.mark.parametrize("arguments", [["--pipelines", "shared,fedavg"], []])
def test_an_arm_at_work_is_refused(ready: Path, arguments: list[str]) -> None:
    locks = Locks()
    locks.acquire(ready / "data" / FOLDER / "fedavg.lock", "fedavg")
    result = CliRunner().invoke(run, arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"fedavg in {ready}/data is in use by process " in result.stderr
    assert "by --params data_root=..." in result.stderr
    assert not (ready / "data/summary.json").exists()
    assert not (ready / "mlflow.db").exists()
    # What was locked before the refusal is free again, and so are other arms and other folders.
    for other in (["--pipelines", "shared,dcgan"], [*arguments, "--env", "smoke"]):
        assert CliRunner().invoke(run, other).exit_code == 0
    locks.release()
    assert CliRunner().invoke(run, arguments).exit_code == 0


def test_a_data_folder_that_cannot_be_written_is_one_line(ready: Path) -> None:
    (ready / "taken").touch()
    result = CliRunner().invoke(run, ["--pipelines", "fedavg", "--params", "data_root=taken"])
    assert result.exit_code == 2
    assert "allow writing there, or name another folder by --params data_root" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_failed_run_releases(ready: Path) -> None:
    failing = ["--pipelines", "shared,fedavg", "--params", "training.learning_rate=2"]
    for _ in range(2):
        result = CliRunner().invoke(run, failing)
        assert "loss is nan" in result.stderr


def test_leftovers_of_the_arm_go_at_the_next_start(ready: Path) -> None:
    checkpoints = ready / "data/06_models/checkpoints"
    leftovers = [
        checkpoints / "fedavg/.tmpA1b2C3",
        checkpoints / "fedavg/clients/3/.round-000001.0a1b2c3d.partial.safetensors",
        ready / "data/06_models/.fedavg.0a1b2c3d.partial/unet/x.safetensors",
    ]
    kept = [checkpoints / "fedavg/round-000001.safetensors", checkpoints / "dcgan/.tmpA1b2C3"]
    for file in (*leftovers, *kept):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert CliRunner().invoke(run, ["--pipelines", "shared,fedavg"]).exit_code == 0
    assert not [file for file in leftovers if file.exists()]
    assert all(file.exists() for file in kept)


def test_a_runner_of_several_processes_is_refused(ready: Path) -> None:
    result = CliRunner().invoke(run, ["--runner", "ParallelRunner"])
    assert result.exit_code == 2
    assert "--runner ParallelRunner: this project's nodes share memory" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (ready / "mlflow.db").exists()
    assert not (ready / "data/summary.json").exists()
