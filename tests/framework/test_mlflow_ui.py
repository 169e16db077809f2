"""`kedro ui` opens the experiment that runs are recorded in, for models rather than for chats."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from phoenix_pipeline.cli import ui
from phoenix_pipeline.framework.mlflow_ui import page_address


def test_the_address_of_a_page() -> None:
    assert page_address("http://host:5000/", "7") == (
        "http://host:5000/#/experiments/7/runs?compareRunsMode=CHART&workflowType=machine_learning"
    )


def test_the_configured_database_and_experiment_are_served(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    uri = f"sqlite:///{project}/elsewhere/runs.db"
    (project / "conf/base/mlflow.yml").write_text(f"{{tracking_uri: '{uri}', experiment: third}}\n")
    for name in ("first", "second", "third"):
        last = MlflowClient(uri).create_experiment(name)
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, env: started.append(command))
    result = CliRunner().invoke(ui, ["--port", "5007"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"MLflow: {page_address('http://127.0.0.1:5007', last)}\n"
    assert started[0][-4:] == ["--port", "5007", "--backend-store-uri", uri]


def test_a_server_is_only_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking:5000")
    monkeypatch.setattr(
        "phoenix_pipeline.framework.mlflow_ui.connect", lambda config, project: (None, "4")
    )
    result = CliRunner().invoke(ui, [])
    assert result.exit_code == 0
    assert result.stdout.startswith("MLflow: http://***@tracking:5000/#/experiments/4/runs?")
