"""What a Kedro session leaves in MLflow: a run per arm, closed whatever happens."""

from pathlib import Path
from typing import Any

import pytest
from kedro.framework.session import KedroSession

from phoenix_pipeline.config import LocalWorkConfig
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.framework.mlflow_runs import SessionRuns, TrackingConfig, tracking_uri
from phoenix_pipeline.framework.tracking import flatten, round_logger

ARMS = ("centralized", "fedavg", "data_sharing", "personalization", "dcgan")


@pytest.fixture
def tracked(project: Path) -> Path:
    (project / "conf/base/mlflow.yml").write_text("experiment: tiny\n")
    for split in ("train", "test"):
        (project / f"data/01_raw/{split}.parquet").write_text("never opened")
    return project


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
    history = client.get_metric_history(fedavg.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (number, 1.0 / number) for number in range(1, 6)
    ]
    artifacts = {item.path for item in client.list_artifacts(fedavg.info.run_id)}
    assert artifacts == {"model", "metrics.json"}
    assert client.list_artifacts(fedavg.info.run_id, "model")[0].path == "model/weights.txt"


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
