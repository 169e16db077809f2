"""One run at a time per arm of a data folder, and nothing left in it by runs that were killed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol, SharedMemoryDataCatalog
from kedro.pipeline import Pipeline

from phoenix_pipeline.checkpoints import remove_leftovers
from phoenix_pipeline.errors import SettingsError, StorageError
from phoenix_pipeline.file_locks import Locks
from phoenix_pipeline.framework.secrets import shown_command
from phoenix_pipeline.pipelines.arm import SHARED_INPUTS, arm_of

FOLDER = ".locks"
REMEDY = "or give this run a folder of its own by --params data_root=..."
_LAYERS = (
    "03_primary",
    "05_model_input",
    "06_models",
    "06_models/checkpoints",
    "07_model_output",
    "08_reporting",
)


def arms_in(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the arms that ``pipeline`` makes parts of, in alphabetical order."""
    return tuple(sorted({arm_of(node) for node in pipeline.nodes} - {""}))


class RunLockHook:
    """Refuses a run whose arms another run is at work on, before anything is computed.

    Runs of other arms may share a folder as long as they agree on what all arms share: images,
    partition, references.
    """

    def __init__(self) -> None:
        self._locks = Locks(shown_command(), REMEDY)
        self._data_root = Path()
        self._shared_settings = ""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the data folder, and the settings of what all arms share."""
        loader: Any = context.config_loader
        self._data_root = Path(context.project_path) / loader.data_root
        self._shared_settings = _key(loader["parameters"], loader["globals"])

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Lock, then remove what killed runs left of these arms."""
        if isinstance(catalog, SharedMemoryDataCatalog):
            raise SettingsError(
                "--runner ParallelRunner: this project's nodes share memory and cannot run in "
                "processes of their own; leave --runner out (federation.workers trains clients "
                "side by side), or start `kedro run --pipelines <arm>` once per arm"
            )
        # An interrupted run of this process ended without a hook.
        self._locks.release()
        arms = arms_in(pipeline)
        folder = self._data_root / FOLDER
        try:
            for arm in arms:
                self._locks.acquire(folder / f"{arm}.lock", f"{arm} in {self._data_root}")
            if SHARED_INPUTS & pipeline.all_outputs():
                what = f"what all arms share in {self._data_root} (with other settings)"
                self._locks.share(folder / "shared.lock", what, self._shared_settings)
        except BaseException as error:
            self._locks.release()
            if isinstance(error, StorageError):
                remedy = "or name another folder by --params data_root=..."
                raise StorageError(f"{error}, {remedy}") from error
            raise
        for arm in arms:
            for layer in _LAYERS:
                remove_leftovers(self._data_root / layer / arm)

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Release."""
        self._locks.release()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Release."""
        self._locks.release()


def _key(parameters: Mapping[str, Any], paths: Mapping[str, Any]) -> str:
    """Return a hash of the settings behind images, partition and references."""
    shared = {name: parameters[name] for name in ("images", "partition", "evaluation")}
    shared["seed"] = parameters["run"].get("seed")
    shared["paths"] = {
        name: parameters.get(name, paths.get(name)) for name in ("train_images", "test_images")
    }
    text = json.dumps(shared, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
