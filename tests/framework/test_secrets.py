"""Secrets in addresses and settings reach neither MLflow nor a log."""

import logging
from pathlib import Path

import click
import pytest

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.command import parse_params
from phoenix_pipeline.framework.error_lines import describe, write_traceback
from phoenix_pipeline.framework.mlflow_runs import SessionRuns, TrackingConfig
from phoenix_pipeline.framework.run_tags import option_tags
from phoenix_pipeline.framework.secrets import shown_command, shown_value, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:pa55@host:5000/a b", "http://***@host:5000/a b"),
        ("postgresql://ada:p%40ss@db/x", "postgresql://***@db/x"),
        ("https://t0ken@git.example/a.git", "https://***@git.example/a.git"),
        ("s3://b/k?X-Amz-Signature=abc&part=2", "s3://b/k?X-Amz-Signature=***&part=2"),
        ("at http://h/?api_key=abc, gone", "at http://h/?api_key=***, gone"),
        ("a=1,store.token=abc,b=2", "a=1,store.token=***,b=2"),
        ("federation.num_rounds=3,run.seed=7", "federation.num_rounds=3,run.seed=7"),
        ("/photos/caf\udce9 图", r"/photos/caf\xe9 图"),
        ("mail ada@example.org about https://h/p", "mail ada@example.org about https://h/p"),
    ],
)
def test_what_is_hidden_and_what_is_not(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_command_is_shown_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/opt/bin/kedro", "run", "--params", "store.token=hunter2"])
    assert shown_command() == "kedro run --params store.token=***"


def test_settings_with_secret_names_are_hidden() -> None:
    assert shown_value("store.password", "abc") == "***"
    assert shown_value("hub_token", "abc") == "***"
    assert shown_value("run.seed", 7) == "7"
    assert shown_value("run.device", "auto") == "auto"
    assert shown_value("federation.ray.address", "ray://a:b@h:1") == "ray://***@h:1"


def test_mlflow_keeps_no_secret(tmp_path: Path) -> None:
    tags = option_tags({"runtime_params": {"store": {"token": "pa55"}, "at": "x://u:pa55@h"}})
    runs = SessionRuns.start(TrackingConfig(), tmp_path, {**tags, "repo": "https://pa55@h/r"})
    runs.log_params("fedavg", {"address": "ray://u:pa55@h:1", "store.secret": "pa55", "a": 1})
    runs.finish("FINISHED")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(runs.run_id("fedavg"))
    assert run.data.params == {"address": "ray://***@h:1", "store.secret": "***", "a": "1"}
    assert b"pa55" not in (tmp_path / "mlflow.db").read_bytes()


def test_errors_and_tracebacks_do_not_tell_the_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = TrackingConfig(tracking_uri="http://ada:pa55@127.0.0.1:9")
    with pytest.raises(SettingsError) as raised, caplog.at_level(logging.DEBUG, "phoenix_pipeline"):
        SessionRuns.start(config, tmp_path, {})
    assert "http://***@127.0.0.1:9" in str(raised.value)
    assert "pa55" not in str(raised.value) + caplog.text
    written = write_traceback(raised.value, tmp_path)
    assert written is not None
    assert "pa55" not in written.read_text()


def test_errors_about_files_of_any_bytes_are_kept(tmp_path: Path) -> None:
    error = SettingsError("broken: caf\udce9.png")
    line, _ = describe(error)
    assert line == r"broken: caf\xe9.png"
    file = write_traceback(error, tmp_path)
    assert file is not None and r"caf\xe9.png" in file.read_text(encoding="utf-8")


def test_paths_of_any_bytes_reach_the_run_through_params() -> None:
    given = "train_images=/p/caf\udce9,run.seed=7,data_root=007"
    context = click.Context(click.Command("run"))
    assert parse_params(context, click.Option(["--params"]), given) == {
        "train_images": "/p/caf\udce9",
        "run": {"seed": 7},
        "data_root": "007",
    }
