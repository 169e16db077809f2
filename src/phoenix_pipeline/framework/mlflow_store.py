"""Where runs are recorded: ``mlflow.yml``, the address, and a connection or one line that says why.

MLflow is imported by :func:`connect`, which takes seconds: commands that track nothing do not wait.
What is wrong with a SQLite file is told at once: MLflow itself retries for two minutes.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from phoenix_pipeline.errors import SettingsError, StorageError
from phoenix_pipeline.file_locks import locked_for_a_moment
from phoenix_pipeline.framework.secrets import without_secrets

PATIENCE_S = 3.0
_OWN_TABLES = {"experiments", "runs"}
# The first connection makes some fifty tables.
_MIGRATION_PATIENCE_S = 120.0
_REMEDY = (
    "or name another database or server by MLFLOW_TRACKING_URI or by tracking_uri in "
    "conf/base/mlflow.yml, or record nothing: PHOENIX_TRACKING=0"
)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a ``sqlite:///`` address, ``~`` expanded; None for any other address."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if path == uri or path in ("", ":memory:"):
        return None
    return Path(path).expanduser()


def find_problem(file: Path) -> str | None:
    """Return why MLflow cannot use ``file``, with what to do about it; None when it can.

    A file that is not there is made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=PATIENCE_S, isolation_level=None)) as database:
            problem = _foreign_tables(database)
            if problem is None:
                _try_writing(database)
            return problem
    except OSError as error:
        return f"{error.filename or file}: {error.strerror}; allow writing there"
    except sqlite3.OperationalError as error:
        return f"{error}; {_remedy(str(error))}"
    except sqlite3.DatabaseError as error:
        return f"it is no whole database ({error}); move the file away (a new one is made)"


def _foreign_tables(database: sqlite3.Connection) -> str | None:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {name for (name,) in rows if not name.startswith("sqlite_")} - {"alembic_version"}
    if tables and not tables >= _OWN_TABLES:
        shown = ", ".join(sorted(tables)[:3])
        return f"it holds the tables of another program ({shown}); name another file"
    return None


def _try_writing(database: sqlite3.Connection) -> None:
    """Write and take it back; raises sqlite3.OperationalError when that is not possible."""
    database.execute("BEGIN IMMEDIATE")
    database.execute("CREATE TABLE phoenix_probe (x)")
    database.execute("ROLLBACK")


def _remedy(reason: str) -> str:
    if "locked" in reason:
        return f"another program has held it for {PATIENCE_S:.0f} s: end that, or start again later"
    if "full" in reason:
        return "free some space"
    return "allow writing to it and to its folder"


if TYPE_CHECKING:
    from mlflow import MlflowClient


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
    system_metrics: bool = Field(
        False,
        description="Log CPU, memory, disk, network and GPU of this machine every 10 s to the "
        "session's run (extra `system-metrics`).",
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
