"""The MLflow runs of one Kedro session: a top-level run per arm, and one for what arms share.

Only the client is used, never MLflow's "active run", so any thread may log. MLflow is imported by
:meth:`SessionRuns.start`, which takes seconds: commands that track nothing do not wait for it.
A tracking error after the start is reported once and never stops a training run.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.secrets import shown_value, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_MAX_PARAM_LENGTH = 6000
_PARAMS_PER_BATCH = 100
SESSION = ""
"""The namespace of nodes that belong to no arm."""
CELL_TAG = "sweep.cell"
"""The tag that tells the cell of a sweep; it comes from the environment, by MLFLOW_RUN_CONTEXT."""


class TrackingConfig(BaseModel):
    """``conf/<env>/mlflow.yml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Record runs in MLflow.")
    tracking_uri: str | None = Field(
        None,
        description="A tracking server or database; null: a SQLite file in the project. The "
        "environment variable MLFLOW_TRACKING_URI wins.",
    )
    experiment: str = Field("phoenix", min_length=1, description="Name of the MLflow experiment.")


def tracking_uri(config: TrackingConfig, project: Path) -> str:
    """Return the address in use: the environment's, else the configured one, else the project's."""
    embedded = f"sqlite:///{(project / 'mlflow.db').as_posix()}"
    return os.environ.get("MLFLOW_TRACKING_URI") or config.tracking_uri or embedded


class SessionRuns:
    """Opens an arm's run when it first logs; closes all of them together."""

    def __init__(
        self,
        client: "MlflowClient",
        experiment_id: str,
        tags: dict[str, str],
        name: str = "session",
    ) -> None:
        """Open the session's own run, called ``name``."""
        self._client, self._experiment_id, self._tags = client, experiment_id, tags
        self._lock = threading.RLock()
        self._last_used: dict[str, int] = {}
        self._logged: set[tuple[str, str]] = set()
        self._failed = False
        self._runs = {SESSION: self._create(name, {})}

    @classmethod
    def start(
        cls, config: TrackingConfig, project: Path, tags: dict[str, str], name: str = "session"
    ) -> "SessionRuns":
        """Connect and open the session's run, called ``name``.

        Raises SettingsError when the server does not answer.
        """
        uri = tracking_uri(config, project)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.tracking.context.registry import resolve_tags

        # MLflow configures its own logger when it is imported: three lines for every new database.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        artifacts = (project / "mlruns").as_uri() if uri.startswith("sqlite:") else None
        try:
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(config.experiment)
            if found is None:
                experiment_id = client.create_experiment(config.experiment, artifacts)
            else:
                experiment_id = found.experiment_id
                if found.lifecycle_stage == "deleted":
                    client.restore_experiment(experiment_id)
            return cls(client, experiment_id, {**resolve_tags(), **tags}, name)
        except (MlflowException, OSError) as error:
            reason = without_secrets(" ".join(str(error).split()))[:200]
            raise SettingsError(
                f"MLflow at {without_secrets(uri)} cannot be used: {reason}; start the server, "
                "change MLFLOW_TRACKING_URI or tracking_uri in conf/base/mlflow.yml, or set "
                "enabled there"
            ) from error

    def run_id(self, namespace: str) -> str:
        """Return the run of an arm, opening it on first use."""
        with self._lock:
            if namespace not in self._runs:
                own = {"arm": namespace, "session_run": self._runs[SESSION]}
                self._runs[namespace] = self._create(namespace, own)
            return self._runs[namespace]

    def log_params(self, namespace: str, params: Mapping[str, Any]) -> None:
        """Log settings; one that this run already has is left as it is."""

        def send() -> None:
            from mlflow.entities import Param

            run_id = self.run_id(namespace)
            new = {
                name: value for name, value in params.items() if (run_id, name) not in self._logged
            }
            self._logged.update((run_id, name) for name in new)
            batch = [
                Param(name, shown_value(name, value)[:_MAX_PARAM_LENGTH])
                for name, value in new.items()
            ]
            for start in range(0, len(batch), _PARAMS_PER_BATCH):
                self._client.log_batch(run_id, params=batch[start : start + _PARAMS_PER_BATCH])

        self._guarded(namespace, send)

    def log_metrics(self, namespace: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log the finite numbers among ``metrics`` at ``step``."""

        def send() -> None:
            from mlflow.entities import Metric

            now = _now_ms()
            batch = [
                Metric(name, float(value), now, step)
                for name, value in metrics.items()
                if value is not None and math.isfinite(value)
            ]
            if batch:
                self._client.log_batch(self.run_id(namespace), metrics=batch)

        self._guarded(namespace, send)

    def log_artifact(self, namespace: str, path: Path, folder_name: str) -> None:
        """Copy a file to the run's artifacts, or a folder to ``folder_name`` there."""

        def send() -> None:
            if path.is_dir():
                self._client.log_artifacts(self.run_id(namespace), str(path), folder_name)
            else:
                self._client.log_artifact(self.run_id(namespace), str(path))

        self._guarded(namespace, send)

    def finish(self, status: str) -> None:
        """Close every run as FINISHED, FAILED or KILLED, at the time that it last logged."""

        def send() -> None:
            for namespace, run_id in self._runs.items():
                ended = _now_ms() if namespace == SESSION else self._last_used.get(run_id)
                self._client.set_terminated(run_id, status, ended)

        self._guarded(SESSION, send)

    def _create(self, name: str, tags: dict[str, str]) -> str:
        cell = self._tags.get(CELL_TAG)
        run = self._client.create_run(
            self._experiment_id,
            run_name=f"{name} {cell}" if cell else name,
            tags={name: without_secrets(str(v)) for name, v in {**self._tags, **tags}.items()},
        )
        return str(run.info.run_id)

    def _guarded(self, namespace: str, send: Callable[[], None]) -> None:
        """Call ``send``; a lost tracking server must not cost hours of training."""
        try:
            with self._lock:
                send()
                self._last_used[self.run_id(namespace)] = _now_ms()
        except Exception as error:
            level = logging.DEBUG if self._failed else logging.WARNING
            self._failed = True
            reason = without_secrets(" ".join(str(error).split()))[:200]
            logger.log(level, "MLflow did not take a record and the run goes on: %s", reason)


def _now_ms() -> int:
    return int(time.time() * 1000)
