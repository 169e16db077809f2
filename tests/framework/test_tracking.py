"""What a Kedro session leaves in MLflow: a run per arm, closed whatever happens."""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.framework.session import KedroSession

from phoenix_pipeline.config import ArmSettings, LocalWorkConfig
from phoenix_pipeline.config.base import flatten
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.framework import system_metrics
from phoenix_pipeline.framework.mlflow_runs import SessionRuns
from phoenix_pipeline.framework.mlflow_store import TrackingConfig, tracking_uri
from phoenix_pipeline.framework.node_log import NodeTimes
from phoenix_pipeline.framework.tracking import _settings, round_logger
from phoenix_pipeline.images import encode_png
from phoenix_pipeline.pipelines.federated_training.pipeline import (
    create_pipeline as create_training_pipeline,
)

ARMS = ("centralized", "fedavg", "data_sharing", "personalization", "dcgan")


@pytest.fixture
def tracked(project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    shutil.copy(empty_database, project)
    (project / "conf/base/mlflow.yml").write_text("experiment: tiny\n")
    for split in ("train", "test"):
        (project / f"data/01_raw/{split}.parquet").write_text("never opened")
    return project


def found_runs(project: Path, which: str = "", experiment: str = "tiny") -> list[Any]:
    """Return the runs that ``which`` selects, the oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(TrackingConfig(), project))
    found = client.get_experiment_by_name(experiment)
    order = ["attributes.start_time"]
    return list(client.search_runs([found.experiment_id], which, order_by=order))


def statuses(project: Path) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = {}
    for run in found_runs(project):
        by_name.setdefault(run.info.run_name, []).append(run.info.status)
    return by_name


def child_environment() -> dict[str, str]:
    path = [Path(__file__).parent, Path(__file__).parents[2] / "src"]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}


def kedro_run(project: Path, *names: str, **params: Any) -> None:
    with KedroSession.create(project_path=project, runtime_params=params) as session:
        session.run(pipeline_names=list(names) or None)


def test_each_arm_has_a_run_of_its_own(tracked: Path) -> None:
    kedro_run(tracked)
    with pytest.raises(TrainingError):
        kedro_run(tracked, "shared", "fedavg", training={"learning_rate": 2.0})

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(TrackingConfig(), tracked))
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    names = [(run.info.run_name, run.info.status) for run in runs]
    assert names[0] == ("session", "FINISHED")
    assert sorted(names[1 : 1 + len(ARMS)]) == sorted((arm, "FINISHED") for arm in ARMS)
    assert names[1 + len(ARMS) :] == [("session", "FAILED"), ("fedavg", "FAILED")]

    by_name = {run.info.run_name: run for run in runs[: 1 + len(ARMS)]}
    session, fedavg = by_name["session"], by_name["fedavg"]
    assert fedavg.data.tags["arm"] == "fedavg"
    assert fedavg.data.tags["session_run"] == session.info.run_id
    assert "mlflow.parentRunId" not in fedavg.data.tags
    assert session.data.params["run.seed"] == "7"
    assert fedavg.data.params["federation.local_work.amount"] == "10.0"
    assert by_name["centralized"].data.params["federation.pooled"] == "True"
    assert fedavg.data.params["federation.pooled"] == "False"
    assert fedavg.data.metrics == {"loss": 0.2, "fid_pixels": 2.0, "group.recall": 0.5}
    (used,) = fedavg.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("train_images", "8706dc2564d4d14e")
    assert (used.tags[0].key, used.tags[0].value) == ("mlflow.data.context", "train")
    history = client.get_metric_history(fedavg.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (number, 1.0 / number) for number in range(1, 6)
    ]
    artifacts = {item.path for item in client.list_artifacts(fedavg.info.run_id)}
    assert artifacts == {"model", "metrics.json"}
    assert client.list_artifacts(fedavg.info.run_id, "model")[0].path == "model/weights.txt"


def test_the_machine_is_watched_on_request(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    kedro_run(tracked)
    (tracked / "conf/base/mlflow.yml").write_text("experiment: tiny\nsystem_metrics: true\n")
    kedro_run(tracked)
    unwatched, watched = found_runs(tracked, "attributes.run_name = 'session'")
    assert not [name for name in unwatched.data.metrics if name.startswith("system/")]
    assert 0.0 < watched.data.metrics["system/system_memory_usage_percentage"] < 100.0
    assert not [t for t in threading.enumerate() if t.name == "SystemMetricsMonitor"]


def test_what_watches_the_machine_is_asked_for(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "find_spec", lambda name: None)
    (tracked / "conf/base/mlflow.yml").write_text("experiment: tiny\nsystem_metrics: true\n")
    with pytest.raises(SettingsError, match="needs psutil, the extra system-metrics"):
        kedro_run(tracked)


def test_every_arm_can_be_filtered_by_images_and_partition(tracked: Path) -> None:
    kedro_run(tracked, "shared", "fedavg", partition={"num_clients": 7}, images={"channels": 1})
    (run,) = found_runs(tracked, "attributes.run_name = 'fedavg'")
    assert run.data.params["partition.num_clients"] == "7"
    assert run.data.params["partition.scheme"] == "pathological"
    assert run.data.params["images.channels"] == "1"


def test_runs_carry_the_commit(tracked: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=b", "-C", str(tracked)]
    for command in (["init", "-q"], ["add", "conf"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    kedro_run(tracked, "shared")
    (tracked / "conf/base/parameters_run.yml").write_text("run: {seed: 8}\n")
    kedro_run(tracked, "shared")
    tags = [run.data.tags for run in found_runs(tracked)]
    assert [tag["mlflow.source.git.commit"] for tag in tags] == [told.stdout.strip()] * 2
    assert [tag["git.dirty"] for tag in tags] == ["false", "true"]


def test_the_experiment_comes_from_the_environment_first(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    kedro_run(tracked, "shared")
    assert len(found_runs(tracked, experiment="mine")) == 1


def test_what_a_killed_session_left_running_is_killed(tracked: Path) -> None:
    code = (
        "import os; from pathlib import Path\n"
        "from kedro.framework.startup import bootstrap_project as b; b(Path.cwd())\n"
        "from kedro.framework.project import pipelines; pipelines.configure('tiny_registry')\n"
        "from kedro.framework.session import KedroSession\n"
        "from phoenix_pipeline.framework import tracking\n"
        "tracking.ArmMlflowHook._finish = lambda self, status: os.kill(os.getpid(), 9)\n"
        "with KedroSession.create(env='smoke') as s: s.run(pipeline_names=['shared', 'fedavg'])"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False, env=child_environment())
    assert killed.returncode == -9
    assert statuses(tracked) == {"session": ["RUNNING"], "fedavg": ["RUNNING"]}
    kedro_run(tracked, "shared", "fedavg")  # in another data folder: nothing is known of that one
    assert statuses(tracked)["fedavg"] == ["RUNNING", "FINISHED"]
    with KedroSession.create(project_path=tracked, env="smoke") as session:
        session.run(pipeline_names=["shared", "dcgan"])
    assert statuses(tracked)["fedavg"] == ["RUNNING", "FINISHED"]
    with KedroSession.create(project_path=tracked, env="smoke") as session:
        session.run(pipeline_names=["shared", "fedavg"])
    assert statuses(tracked)["fedavg"] == ["KILLED", "FINISHED", "FINISHED"]
    assert statuses(tracked)["session"] == ["KILLED", "FINISHED", "FINISHED", "FINISHED"]
    first = found_runs(tracked, "attributes.run_name = 'fedavg'")[0]
    assert 0 <= first.info.end_time - first.info.start_time < 60_000


def test_an_arm_lasts_as_long_as_its_own_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1000, 1100, 1200, 5000, 5400, 5600, 9000, 9500, 9500])
    monkeypatch.setattr("phoenix_pipeline.framework.node_log.now_ms", lambda: next(clock))
    times = NodeTimes()
    times.begin("fedavg", "check")  # 1000 to 1100
    times.go_on("fedavg", "check")
    times.begin("dcgan", "check")  # 1200, and it fails
    times.begin("fedavg", "train")  # 5000 to 5400, saved at 5600
    times.go_on("fedavg", "train")
    times.go_on("fedavg", "train")
    assert times.begin_ms("fedavg") == 1000
    assert times.end_ms("fedavg") == 1000 + 100 + 600
    assert times.end_ms("dcgan") == 9500
    assert times.begin_ms("centralized") is times.end_ms("centralized") is None


def test_nothing_is_recorded_when_tracking_is_off(project: Path) -> None:
    for split in ("train", "test"):
        (project / f"data/01_raw/{split}.parquet").write_text("never opened")
    kedro_run(project, "shared", "fedavg")
    assert (project / "data/08_reporting/fedavg/metrics.json").is_file()
    assert not (project / "mlflow.db").exists()


def test_round_logger_outside_a_run_does_nothing() -> None:
    round_logger()(1, {"loss": 1.0})


def test_the_address_comes_from_the_environment_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = TrackingConfig(tracking_uri="http://configured")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(TrackingConfig(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri(config, tmp_path) == "http://configured"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking_uri(config, tmp_path) == "http://environment"


def test_an_unusable_store_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = TrackingConfig(tracking_uri="nonsense://store")
    with pytest.raises(
        SettingsError, match=r"nonsense://store cannot be used.*mlflow\.yml"
    ) as caught:
        SessionRuns.start(config, tmp_path, {})
    assert "\n" not in str(caught.value)


def test_flatten_names_leaves_by_their_path() -> None:
    nested = {"work": LocalWorkConfig(unit="steps", amount=3), "n": {"a": {"b": 1}}, "x": [1, 2]}
    assert dict(flatten(nested, "p")) == {
        "p.work.unit": "steps",
        "p.work.amount": 3.0,
        "p.n.a.b": 1,
        "p.x": [1, 2],
    }


def test_a_table_by_round_becomes_steps(tmp_path: Path) -> None:
    png = encode_png(np.full((1, 4, 6), 200, np.uint8))
    table = pd.DataFrame({"round": [5, 10], "fid_pixels": [2.5, 0.5], "grid": [png, png]})
    runs = SessionRuns.start(TrackingConfig(experiment="tiny"), tmp_path, {})
    runs.log_by_round("fedavg", table)
    runs.finish("FINISHED")

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(TrackingConfig(), tmp_path))
    (run,) = found_runs(tmp_path, "attributes.run_name = 'fedavg'")
    history = client.get_metric_history(run.info.run_id, "by_round/fid_pixels")
    assert [(point.step, point.value) for point in history] == [(5, 2.5), (10, 0.5)]
    assert "by_round/grid" not in run.data.metrics
    pictures = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    assert {int(re.findall(r"step\W(\d+)", path)[0]) for path in pictures} == {5, 10}


def test_what_waits_for_the_images_is_logged_when_it_is_settled() -> None:
    arm = ArmSettings(training={"batch_size": "auto", "learning_rate": 0.5})
    logged = dict(_settings(arm, ""))
    assert logged["training.learning_rate"] == 0.5
    assert "training.batch_size" not in logged
    # The tracker finds what it became among the inputs of the node that trains.
    (train,) = create_training_pipeline("fedavg").only_nodes("fedavg.train").nodes
    assert "fedavg.model_summary" in train.inputs
