"""Where runs are recorded: ``mlflow.yml``, the address, and a connection or one line that says why.

MLflow is imported by :func:`connect`, which takes seconds: commands that track nothing do not wait.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from phoenix_pipeline.errors import SettingsError, StorageError
from phoenix_pipeline.file_locks import locked_for_a_moment
from phoenix_pipeline.framework.secrets import without_secrets
from phoenix_pipeline.framework.sqlite_check import find_problem, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The first connection makes some fifty tables.
_MIGRATION_PATIENCE_S = 120.0
_REMEDY = (
    "or name another database or server by MLFLOW_TRACKING_URI or by tracking_uri in "
    "conf/base/mlflow.yml, or record nothing: PHOENIX_TRACKING=0"
)


class TrackingConfig(BaseModel):
    """``conf/<env>/mlflow.yml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Record runs in MLflow.")
    tracking_uri: str | None = Field(
        None,
        description="A tracking server or database; null: a SQLite file in the project. The "
        "environment variable MLFLOW_TRACKING_URI wins.",
    )
    experiment: str = Field(
        "phoenix",
        min_length=1,
        description="Name of the MLflow experiment. The environment variable "
        "MLFLOW_EXPERIMENT_NAME wins.",
    )
    register_models: bool = Field(
        False,
        description="Register each arm's model as a new version of <experiment>-<arm>.",
    )


def tracking_uri(config: TrackingConfig, project: Path) -> str:
    """Return the address in use: the environment's, else the configured one, else the project's."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking_uri
    file = sqlite_file(uri) if uri else project / "mlflow.db"
    return f"sqlite:///{file.as_posix()}" if file else str(uri)


def experiment_name(config: TrackingConfig) -> str:
    """Return the experiment in use: the environment's, else the configured one."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or config.experiment


def connect(config: TrackingConfig, project: Path) -> "tuple[MlflowClient, str]":
    """Return a client and the experiment's id; the experiment is made or restored.

    Raises SettingsError, at once and in one line with what to do, when that does not work.
    """
    uri = tracking_uri(config, project)
    file = sqlite_file(uri)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    try:
        with _one_migration(file):
            if file and (problem := find_problem(file)):
                raise StorageError(problem)
            artifacts = (project / "mlruns").as_uri() if file else None
            return _open_experiment(uri, experiment_name(config), artifacts)
    except Exception as error:  # MLflow, SQLAlchemy, Alembic and drivers raise their own kinds.
        start = "" if file else "start the server, "
        raise SettingsError(
            f"MLflow at {without_secrets(uri)} cannot be used: {reason_of(error)}; {start}{_REMEDY}"
        ) from error


def reason_of(error: BaseException) -> str:
    """Return what ``error`` says in one line, without SQL and without secrets."""
    text = " ".join(str(error).split()) or type(error).__name__
    for noise in (" [SQL:", " (Background on this error"):
        text = text.partition(noise)[0]
    return without_secrets(text).rstrip(".")


@contextmanager
def _one_migration(file: Path | None) -> Iterator[None]:
    """Let one process after another make or change the tables of a SQLite file."""
    if file is None:
        yield
        return
    with locked_for_a_moment(file.with_name(f"{file.name}.lock"), _MIGRATION_PATIENCE_S):
        yield


def _open_experiment(uri: str, name: str, artifacts: str | None) -> "tuple[MlflowClient, str]":
    from mlflow import MlflowClient

    # MLflow configures its own logger when it is imported: three lines for every new database.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    found: Any = client.get_experiment_by_name(name)
    if found is None:
        return client, client.create_experiment(name, artifacts)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return client, found.experiment_id
