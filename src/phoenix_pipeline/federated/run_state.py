"""Checkpoints of a run: written after a round, found again by the same settings."""

import json
import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.errors import CheckpointError

logger = logging.getLogger(__name__)

_KEPT = 2


def save_run(
    folder: Path,
    server_round: int,
    state: dict[str, Tensor],
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
) -> None:
    """Write the run's state after ``server_round`` and drop all but the last two."""
    save_tensors(
        folder / f"round-{server_round:06d}.safetensors",
        state,
        {"round": server_round, "settings": settings, "rows": json.dumps(rows)},
    )
    for path in sorted(folder.glob("round-*.safetensors"))[:-_KEPT]:
        path.unlink()


def find_run(
    folder: Path, settings: dict[str, Any]
) -> tuple[int, dict[str, Tensor], list[dict[str, Any]]] | None:
    """Return (round, state, rows) of the newest intact checkpoint of the same settings, or None."""
    for path in sorted(folder.glob("round-*.safetensors"), reverse=True):
        try:
            state, metadata = load_tensors(path)
        except CheckpointError as error:
            logger.warning("%s; trying the one before it", error)
            continue
        differing = sorted(
            key
            for key in settings.keys() | metadata["settings"].keys()
            if settings.get(key) != metadata["settings"].get(key)
        )
        if differing:
            logger.info("starting anew: %s holds a run of other %s", folder, ", ".join(differing))
            return None
        return int(metadata["round"]), state, json.loads(metadata["rows"])
    return None
