"""The MLflow runs of one Kedro session: a top-level run per arm, and one for what arms share.

Only the client is used, never MLflow's "active run", so any thread may log. A tracking error after
the start is reported once and never stops a training run.
"""

import io
import json
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoenix_pipeline.framework.mlflow_model import FILE, describe_mlmodel
from phoenix_pipeline.framework.mlflow_store import TrackingConfig, connect, reason_of
from phoenix_pipeline.framework.node_log import NodeTimes, now_ms
from phoenix_pipeline.framework.run_tags import ARMS, DATA_ROOT, commit_tags
from phoenix_pipeline.framework.secrets import shown_value, without_secrets

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

_MAX_PARAM_LENGTH = 6000
_PARAMS_PER_BATCH = 100
_METRICS_PER_BATCH = 1000
_SECONDS_BETWEEN_WRITES = 3.0
_OPEN_RUNS = 1000
_BY_ROUND = "by_round/"
SESSION = ""
"""What ``arm_of`` calls nodes that belong to no arm."""
CELL_TAG = "sweep.cell"
"""The tag that tells the cell of a sweep; it comes from the environment, by MLFLOW_RUN_CONTEXT."""


class SessionRuns:
    """Opens an arm's run when its first node begins; closes all of them together.

    ``arm_params`` are settings that every arm's run has, though its nodes do not read them.
    """

    def __init__(
        self,
        client: "MlflowClient",
        experiment_id: str,
        tags: dict[str, str],
        name: str = "session",
        arm_params: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the session's own run, called ``name``."""
        self._client, self._experiment_id, self._tags = client, experiment_id, tags
        self._arm_params = dict(arm_params or {})
        self._lock = threading.RLock()
        self._logged: set[tuple[str, str]] = set()
        self._failed = False
        self._waiting: defaultdict[str, list[Metric]] = defaultdict(list)
        self._next_write = 0.0
        self.times = NodeTimes()
        self._runs = {SESSION: self._create(name, {})}

    @classmethod
    def start(
        cls,
        config: TrackingConfig,
        project: Path,
        tags: dict[str, str],
        name: str = "session",
        arm_params: Mapping[str, Any] | None = None,
    ) -> "SessionRuns":
        """Connect and open the session's run, called ``name``.

        Raises SettingsError when the database or the server cannot be used.
        """
        client, experiment_id = connect(config, project)
        from mlflow.tracking.context.registry import resolve_tags

        known = {**resolve_tags(), **commit_tags(project), **tags}
        return cls(client, experiment_id, known, name, arm_params)

    def close_abandoned(self, data_root: str, arms: Iterable[str]) -> None:
        """Close as KILLED what earlier sessions left RUNNING of these arms in this data folder.

        To be called by who holds the arms' locks: nobody else can be at work on them.
        """
        mine = set(arms)
        with self._guarded():
            for run in self._client.search_runs(
                [self._experiment_id], "attributes.status = 'RUNNING'", max_results=_OPEN_RUNS
            ):
                tags = run.data.tags
                named = {tags["arm"]} if "arm" in tags else set(tags.get(ARMS, "").split(","))
                if tags.get(DATA_ROOT) == data_root and named & mine:
                    if run.info.run_id not in self._runs.values():
                        self._client.set_terminated(run.info.run_id, "KILLED", self._last(run))

    def run_id(self, namespace: str) -> str:
        """Return the run of an arm, opening it on first use."""
        with self._lock:
            if namespace not in self._runs:
                own = {"arm": namespace, "session_run": self._runs[SESSION]}
                began = self.times.begin_ms(namespace)
                self._runs[namespace] = self._create(namespace, own, began)
                self.log_params(namespace, self._arm_params)
            return self._runs[namespace]

    def log_params(self, namespace: str, params: Mapping[str, Any]) -> None:
        """Log settings; one that this run already has is left as it is."""
        with self._guarded():
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

    def log_metrics(self, namespace: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log the finite numbers among ``metrics`` at ``step``, with those of the next seconds."""
        with self._guarded():
            from mlflow.entities import Metric

            now = now_ms()
            self._waiting[namespace].extend(
                Metric(name, float(value), now, step)
                for name, value in metrics.items()
                if value is not None and math.isfinite(value)
            )
        if time.monotonic() >= self._next_write:
            self.write_metrics()

    def write_metrics(self) -> None:
        """Write what waits: a transaction for every round costs as much as a short round."""
        with self._guarded():
            self._next_write = time.monotonic() + _SECONDS_BETWEEN_WRITES
            waiting, self._waiting = self._waiting, defaultdict(list)
            for namespace, metrics in waiting.items():
                for start in range(0, len(metrics), _METRICS_PER_BATCH):
                    batch = metrics[start : start + _METRICS_PER_BATCH]
                    self._client.log_batch(self.run_id(namespace), metrics=batch)

    def log_by_round(self, namespace: str, table: "pd.DataFrame") -> None:
        """Log each row at the step ``round``: its numbers, and its PNG columns as images."""
        for row in table.to_dict("records"):
            values = {f"{_BY_ROUND}{name}": v for name, v in row.items() if name != "round"}
            pictures = {name: v for name, v in values.items() if isinstance(v, bytes)}
            numbers = {name: v for name, v in values.items() if name not in pictures}
            self.log_metrics(namespace, numbers, int(row["round"]))
            for name, png in pictures.items():
                self._log_image(namespace, name, png, int(row["round"]))

    def _log_image(self, namespace: str, key: str, png: bytes, step: int) -> None:
        with self._guarded():
            from PIL import Image

            with Image.open(io.BytesIO(png)) as image:
                self._client.log_image(self.run_id(namespace), image, key=key, step=step)

    def log_image_sets(self, namespace: str, digests: Mapping[str, str]) -> None:
        """Make image sets inputs of the run; ``digests``: what the catalog calls one -> its own."""
        with self._guarded():
            from mlflow.entities import Dataset, DatasetInput, InputTag

            inputs = [
                DatasetInput(
                    Dataset(name, digest, "local", json.dumps({"uri": name})),
                    [InputTag("mlflow.data.context", name.removesuffix("_images"))],
                )
                for name, digest in digests.items()
            ]
            self._client.log_inputs(self.run_id(namespace), inputs)

    def log_artifact(self, namespace: str, path: Path, folder_name: str) -> None:
        """Copy a file to the run's artifacts, or a folder to ``folder_name`` there."""
        with self._guarded():
            if path.is_dir():
                self._client.log_artifacts(self.run_id(namespace), str(path), folder_name)
            else:
                self._client.log_artifact(self.run_id(namespace), str(path))

    def log_model(self, arm: str, folder: Path, name: str, sampling: Mapping[str, Any]) -> None:
        """Copy an arm's model folder to ``name`` in its run, as a model that MLflow can load."""
        with self._guarded():
            run_id = self.run_id(arm)
            self._client.log_artifacts(run_id, str(folder), name)
            self._client.log_text(
                run_id, describe_mlmodel(folder, run_id, name, sampling), f"{name}/{FILE}"
            )

    def register_model(self, arm: str, name: str, registered: str) -> None:
        """Make the model in ``name`` of the arm's run a new version of ``registered``."""
        with self._guarded():
            from mlflow.exceptions import MlflowException

            run_id = self.run_id(arm)
            with suppress(MlflowException):  # It is there from the second run on.
                self._client.create_registered_model(registered)
            self._client.create_model_version(registered, f"runs:/{run_id}/{name}", run_id)

    def finish(self, status: str) -> None:
        """Close every run as FINISHED, FAILED or KILLED; an arm's lasts as long as its nodes."""
        self.write_metrics()
        with self._guarded():
            for namespace, run_id in self._runs.items():
                ended = self.times.end_ms(namespace) if namespace != SESSION else None
                self._client.set_terminated(run_id, status, ended or now_ms())

    def _create(self, name: str, tags: dict[str, str], began: int | None = None) -> str:
        cell = self._tags.get(CELL_TAG)
        run = self._client.create_run(
            self._experiment_id,
            began or now_ms(),
            run_name=f"{name} {cell}" if cell else name,
            tags={name: without_secrets(str(v)) for name, v in {**self._tags, **tags}.items()},
        )
        return str(run.info.run_id)

    def _last(self, run: "Run") -> int:
        """Return when a run last logged a loss, or else when it began."""
        history = self._client.get_metric_history(run.info.run_id, "loss")
        return max([point.timestamp for point in history], default=int(run.info.start_time))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Report what fails in the block: a lost tracking server must not cost hours of work."""
        try:
            with self._lock:
                yield
        except Exception as error:
            level = logging.DEBUG if self._failed else logging.WARNING
            self._failed = True
            logger.log(
                level, "MLflow did not take a record and the run goes on: %s", reason_of(error)
            )
