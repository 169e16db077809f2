"""The Kedro hook that records arms in MLflow, and the logger that training calls every round."""

import atexit
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from phoenix_pipeline.config import SHARED_GROUPS, Group
from phoenix_pipeline.config.base import flatten
from phoenix_pipeline.config.settings_errors import explain
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.mlflow_runs import SESSION, SessionRuns
from phoenix_pipeline.framework.mlflow_store import TrackingConfig, experiment_name, tracking_uri
from phoenix_pipeline.framework.run_lock import arms_in
from phoenix_pipeline.framework.run_tags import ARMS, DATA_ROOT, option_tags
from phoenix_pipeline.framework.system_metrics import watch_machine
from phoenix_pipeline.pipelines.arm import arm_of

# What all arms share and every arm's run has all the same, so that runs can be filtered by it.
_OF_ALL_ARMS = ("images", "partition")
# The data set that says what each setting of ``auto`` became.
_SUMMARY = "model_summary"

RoundLogger = Callable[[int, Mapping[str, float]], None]

_NODE: ContextVar[tuple[SessionRuns, str] | None] = ContextVar("_NODE", default=None)

# Conditions of scores that are digests of images.
_IMAGE_SETS = ("train_images", "test_images")


def round_logger() -> RoundLogger:
    """Return ``log(round, metrics)`` for the arm of the node that is running.

    Call it in the node; the result may then be called from any thread. It does nothing when
    tracking is off. NaN and infinite values are left out.
    """
    current = _NODE.get()

    def log(round_number: int, metrics: Mapping[str, float]) -> None:
        if current is not None:
            runs, namespace = current
            runs.log_metrics(namespace, metrics, round_number)

    return log


def read_tracking_config(loader: Mapping[str, Any]) -> TrackingConfig:
    """Return ``mlflow.yml`` of a configuration; raises SettingsError for what is not allowed."""
    try:
        values = loader["mlflow"]
    except (MissingConfigException, KeyError):
        values = {}
    problems = explain(TrackingConfig, values, lambda path: path)
    if problems:
        raise SettingsError(f"mlflow.yml: {'; '.join(problems)}")
    return TrackingConfig.model_validate(values)


def is_tracked(config: TrackingConfig) -> bool:
    """Tell whether runs are recorded; PHOENIX_TRACKING=0 switches it off for one command."""
    return config.enabled and os.environ.get("PHOENIX_TRACKING") != "0"


class ArmMlflowHook:
    """One MLflow run per arm, at the top level and with un-prefixed names, so that they compare.

    Settings come from the nodes' ``params:`` inputs. A catalog entry with ``metadata: {mlflow:
    artifact}`` has its file or folder copied to the run; ``{mlflow: metrics}`` (a dict, or one
    under the key ``scores``) has its numbers logged as well; ``{mlflow: model}`` is an arm's model
    folder, which MLflow can then load; ``{mlflow: by_round}`` is a table whose numbers and pictures
    (columns of PNG bytes) are logged at the step in its column ``round``, under ``by_round/``.
    """

    def __init__(self) -> None:
        self._config = TrackingConfig()
        self._project, self._data_root = Path.cwd(), ""
        self._parameters: dict[str, Any] = {}
        self._runs: SessionRuns | None = None
        self._watching = ExitStack()
        self._catalog: CatalogProtocol[Any, Any] | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Read ``mlflow.yml``; MLflow itself is not imported yet."""
        loader: Any = context.config_loader
        self._project = Path(context.project_path)
        self._data_root = f"{socket.gethostname()}:{self._project / loader.data_root}"
        self._config = read_tracking_config(loader)
        self._parameters = loader["parameters"]

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]
    ) -> None:
        """Close what killed sessions left open, and open this session's run."""
        self._catalog = catalog
        if is_tracked(self._config):
            arms = arms_in(pipeline)
            tags = {**option_tags(run_params), DATA_ROOT: self._data_root, ARMS: ",".join(arms)}
            shared = {
                group: SHARED_GROUPS[group].model_validate(self._parameters[group])
                for group in _OF_ALL_ARMS
            }
            self._runs = SessionRuns.start(
                self._config, self._project, tags, arm_params=dict(flatten(shared))
            )
            atexit.register(self._finish, "KILLED")
            if self._config.system_metrics:
                uri = tracking_uri(self._config, self._project)
                self._watching.callback(watch_machine(uri, self._runs.run_id(SESSION)))
            self._runs.close_abandoned(self._data_root, arms)

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Log the node's settings and make its arm the one that ``round_logger`` logs to."""
        if self._runs is None:
            return
        namespace = arm_of(node)
        self._runs.times.begin(namespace, node.name)
        _NODE.set((self._runs, namespace))
        params = {
            path: value
            for name, given in inputs.items()
            if name.startswith("params:")
            for path, value in _settings(
                given, _local_name(name.removeprefix("params:"), namespace)
            )
        }
        summary = inputs.get(f"{namespace}.{_SUMMARY}") or {}
        self._runs.log_params(namespace, {**params, **summary.get("settled", {})})

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Forget the arm."""
        _NODE.set(None)
        if self._runs is not None:
            self._runs.times.go_on(arm_of(node), node.name)
            self._runs.write_metrics()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Log what the catalog entry asks for."""
        if self._runs is None or self._catalog is None:
            return
        self._runs.times.go_on(arm_of(node), node.name)
        dataset = self._catalog.get(dataset_name)
        kind = (getattr(dataset, "metadata", None) or {}).get("mlflow")
        if kind is None:
            return
        if kind not in ("artifact", "metrics", "model", "by_round"):
            raise SettingsError(
                f"{dataset_name} has metadata mlflow: {kind!r}; allowed: artifact, metrics, model, "
                f"by_round; change it in conf/base/catalog.yml"
            )
        namespace = arm_of(node)
        if kind == "metrics":
            scores = dict(flatten(data.get("scores", data)))
            numbers = {k: v for k, v in scores.items() if isinstance(v, int | float)}
            self._runs.log_metrics(namespace, numbers)
            used = data.get("conditions", {})
            self._runs.log_image_sets(namespace, {k: used[k] for k in _IMAGE_SETS if k in used})
        if kind == "by_round":
            self._runs.log_by_round(namespace, data)
        path = Path(str(getattr(dataset, "_filepath")))  # noqa: B009 - Kedro's convention
        name = _local_name(dataset_name, namespace)
        if kind == "model":
            self._runs.log_model(namespace, path, name, self._parameters[namespace]["sampling"])
            if self._config.register_models:
                registered = f"{experiment_name(self._config)}-{namespace}"
                self._runs.register_model(namespace, name, registered)
        else:
            self._runs.log_artifact(namespace, path, name)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Close the runs as FINISHED."""
        self._finish("FINISHED")

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the runs as FAILED."""
        self._finish("FAILED")

    def _finish(self, status: str) -> None:
        atexit.unregister(self._finish)
        _NODE.set(None)
        self._watching.close()
        if self._runs is not None:
            self._runs.finish(status)
            self._runs = None


def _settings(given: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a group but those that still wait for the images."""
    names = given.waiting() if isinstance(given, Group) else ()
    waiting = {f"{prefix}.{key}" if prefix else key for key in names}
    yield from (item for item in flatten(given, prefix) if item[0] not in waiting)


def _local_name(name: str, namespace: str) -> str:
    """Return a name without its arm; "" for the arm's own block of settings."""
    return "" if name == namespace else name.removeprefix(f"{namespace}.")
