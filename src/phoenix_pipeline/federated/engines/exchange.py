"""The folder between Kedro node and ServerApp, on one machine: job in, progress and result out."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import FederationConfig, ThresholdFilterConfig
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.own_models import OwnModels
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.wire import load_packed, save_packed
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.metrics.monitoring import MonitorReference

# The key of the run configuration that names this folder.
JOB_FOLDER = "job-folder"
JOB_FILE = "job.safetensors"
_RESULT = "result.safetensors"
_FAILURE = "failure.json"
_PROGRESS = "progress.jsonl"
# The kind of a line of progress that is one of the log; its number is the level.
LOG = "log"
_POOL, _POOL_LABELS = "pool", "pool_labels"
_START = "start/"
# What of a job is no array, by the name of its field.
_PLAIN: dict[str, TypeAdapter[Any]] = {
    "config": TypeAdapter(FederationConfig),
    "settings": TypeAdapter(ClientSettings),
    "device": TypeAdapter(str),
    "threshold_filter": TypeAdapter(ThresholdFilterConfig),
    "warmup_steps": TypeAdapter(int),
    "final_average": TypeAdapter(Literal["ema", "raw"] | None),
    "own": TypeAdapter(OwnModels),
}


def write_job(folder: Path, job: FederatedJob) -> None:
    """Write what a ServerApp needs of ``job``: settings, reference, images of a warm-up only."""
    tensors = dict(job.reference.arrays()) if job.reference else {}
    if job.warmup_steps and job.pool is not None:
        tensors[_POOL] = torch.from_numpy(job.images.images[job.pool])
        if job.settings.class_names and job.images.labels is not None:
            tensors[_POOL_LABELS] = torch.from_numpy(job.images.labels[job.pool])
    tensors |= {f"{_START}{name}": array for name, array in (job.start or {}).items()}
    for name in (_RESULT, _FAILURE, _PROGRESS):
        (folder / name).unlink(missing_ok=True)
    plain = {name: to_jsonable_python(getattr(job, name)) for name in _PLAIN}
    save_tensors(folder / JOB_FILE, tensors, {**plain, "has_reference": job.reference is not None})


def read_job(folder: Path) -> FederatedJob:
    """Return the job of :func:`write_job`, without clients; raises CheckpointError."""
    tensors, metadata = load_tensors(folder / JOB_FILE)
    plain: dict[str, Any] = {n: t.validate_python(metadata[n]) for n, t in _PLAIN.items()}
    settings = plain["settings"]
    empty = torch.empty(
        (0, settings.channels, settings.image_size, settings.image_size), dtype=torch.uint8
    )
    names = [name for name in tensors if name.startswith(_START)]
    start = {name.removeprefix(_START): tensors.pop(name) for name in names}
    pool, labels = tensors.pop(_POOL, empty), tensors.pop(_POOL_LABELS, None)
    images = ImageSet(pool.numpy())
    if labels is not None:
        images = ImageSet(pool.numpy(), labels.numpy(), settings.class_names)
    return FederatedJob(
        images=images,
        client_images=pd.DataFrame({"client_id": [], "image_index": []}),
        reference=MonitorReference.from_arrays(tensors) if metadata["has_reference"] else None,
        pool=np.arange(len(pool)) if len(pool) else None,
        start=start or None,
        **plain,
    )


class ProgressFile:
    """Lines that the ServerApp appends and the Kedro node reads as they come."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _PROGRESS
        self._read = 0

    def append(self, kind: str, number: int, values: Mapping[str, Any]) -> None:
        """Add one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([kind, number, dict(values)]) + "\n")

    def news(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Yield the lines that are complete and were not read yet."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                kind, number, values = json.loads(line)
                yield str(kind), int(number), cast(dict[str, Any], values)


@contextmanager
def relayed_log(progress: ProgressFile) -> Iterator[None]:
    """Append what this package logs meanwhile as lines of kind ``log``, for who waits."""
    relay = logging.Handler(logging.INFO)
    relay.emit = lambda record: progress.append(  # type: ignore[method-assign]
        LOG, record.levelno, {"logger": record.name, "text": record.getMessage()}
    )
    package = logging.getLogger(__name__.partition(".")[0])
    package.addHandler(relay)
    try:
        yield
    finally:
        package.removeHandler(relay)


def write_result(
    folder: Path, result: FederatedResult, released: Mapping[int, ClientState]
) -> None:
    """Write the weights, the rows, and what nodes released of their personal layers."""
    groups = {"raw": result.raw, "ema": result.ema, "averaged": result.averaged_personal or {}}
    for client, state in released.items():
        groups |= {f"{client}/{name}": dict(own) for name, own in state.groups().items()}
    metadata = {
        "rows": json.dumps(result.rounds.to_dict("list")),
        "connected": list(result.connected),
        "has_averaged": result.averaged_personal is not None,
        "released": sorted(released),
        "run_key": result.run_key,
        "num_examples": list(result.num_examples.items()),
    }
    save_packed(folder / _RESULT, groups, metadata)


def has_ended(folder: Path) -> bool:
    """Return whether the ServerApp left a result or the reason why there is none."""
    return (folder / _RESULT).is_file() or (folder / _FAILURE).is_file()


def write_failure(folder: Path, error: BaseException) -> None:
    """Leave the reason why there is no result."""
    write_json(folder / _FAILURE, {"reason": str(error) or type(error).__name__})


def read_failure(folder: Path) -> str | None:
    """Return the reason why there is no result; None if there is one, or nothing yet."""
    path = folder / _FAILURE
    return str(read_json(path)["reason"]) if path.is_file() else None


def read_result(folder: Path, personal: bool) -> FederatedResult:
    """Return the result of :func:`write_result`; ``personal``: connected are who released."""
    groups, metadata = load_packed(folder / _RESULT)

    def state_of(client: int) -> ClientState:
        prefix = f"{client}/"
        own: dict[str, Any] = {
            name.removeprefix(prefix): arrays
            for name, arrays in groups.items()
            if name.startswith(prefix)
        }
        return ClientState(**own)

    connected = metadata["released"] if personal else metadata["connected"]
    return FederatedResult(
        raw=groups["raw"],
        ema=groups["ema"],
        rounds=pd.DataFrame(json.loads(metadata["rows"])),
        connected=tuple(connected),
        client_state=state_of,
        averaged_personal=groups["averaged"] if metadata["has_averaged"] else None,
        run_key=metadata["run_key"],
        num_examples=dict(metadata["num_examples"]),
    )
