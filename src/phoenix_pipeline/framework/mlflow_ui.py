"""``kedro ui``: MLflow's pages, at the experiment that this project's runs are in."""

import os
import sys
from pathlib import Path

import click

from phoenix_pipeline.framework.mlflow_store import connect, tracking_uri
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.framework.secrets import without_secrets
from phoenix_pipeline.framework.tracking import read_tracking_config


def show_runs(project: Path, env: str | None, port: int) -> None:
    """Print the address of the runs; serve it on ``port`` where no tracking server does already.

    This process becomes the server. Raises SettingsError when the runs cannot be read.
    """
    config = read_tracking_config(open_config(project, env))
    uri = tracking_uri(config, project)
    _, experiment_id = connect(config, project)
    if uri.startswith(("http://", "https://")):
        click.echo(f"MLflow: {page_address(without_secrets(uri), experiment_id)}")
        return
    click.echo(f"MLflow: {page_address(f'http://127.0.0.1:{port}', experiment_id)}")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", uri]
    os.execve(command[0], command, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


def page_address(server: str, experiment_id: str) -> str:
    """Return the page that shows an experiment's runs side by side.

    MLflow opens pages for language models unless the address asks for the others.
    """
    page = f"experiments/{experiment_id}/runs"
    return f"{server.rstrip('/')}/#/{page}?compareRunsMode=CHART&workflowType=machine_learning"
