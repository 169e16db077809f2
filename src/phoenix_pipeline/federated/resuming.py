"""May a run go on from what is stored? Files of an unfinished run of other settings are refused."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phoenix_pipeline.checkpoints import load_metadata, load_tensors
from phoenix_pipeline.errors import CheckpointError

logger = logging.getLogger(__name__)

# In an arm's checkpoint folder: what the server keeps, and what the clients of a simulation keep.
SERVER_FOLDER = "server"
CLIENTS_FOLDER = "clients"
DATA = "data"

_SHOWN = 6
_LONGEST_VALUE = 60
_WAY_OUT = (
    "to start over, add --params federation.resume=false, or take another --params data_root=..."
)


def checkpoints(folder: Path) -> list[Path]:
    """Return the server's checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("round-*.safetensors"))


def is_resumable(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Return whether the newest readable checkpoint in ``folder`` is of the settings ``asked``.

    False: there is none, or it ended a finished run of other settings, whose place may be taken.
    The fingerprint of the data is left out where ``asked`` has none.

    Raises:
        CheckpointError: it is of an unfinished run of other settings, or none is readable.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            stored = load_metadata(path)
            done, settings = int(stored["round"]), stored["settings"]
        except CheckpointError:
            continue
        except KeyError:
            break
        known = {key: settings[key] for key in settings if key != DATA or DATA in asked}
        different = list(_differences(asked, known))
        if not different:
            return True
        if not _is_intact(path):
            continue
        rounds = settings.get("federation.num_rounds", done + 1)
        if done >= rounds:
            logger.info("%s has a finished run of other settings (%s)", folder, _list(different))
            return False
        raise CheckpointError(
            f"{folder.parent} has an unfinished run of other settings, round {done} of {rounds}: "
            f"{_list(different)}; to continue it, give its settings; {_WAY_OUT}"
        )
    if found:
        raise unreadable(folder)
    return False


def unreadable(folder: Path) -> CheckpointError:
    """Return the error for a folder in which no checkpoint is intact."""
    return CheckpointError(f"no checkpoint in {folder} is intact; {_WAY_OUT}")


def _is_intact(path: Path) -> bool:
    try:
        load_tensors(path)
    except CheckpointError:
        return False
    return True


def _differences(asked: Any, stored: Any, name: str = "") -> Iterator[str]:
    """Yield ``key=value, stored value`` for each setting that differs, however deep it lies."""
    if isinstance(asked, Mapping) and isinstance(stored, Mapping):
        for key in dict.fromkeys([*asked, *stored]):
            yield from _differences(asked.get(key), stored.get(key), f"{name}.{key}".strip("."))
    elif _plain(asked) != _plain(stored):
        if name == DATA:
            yield "data (other images, or held by other clients)"
        else:
            yield f"{name}={_shorten(asked)}, stored {_shorten(stored)}"


def _plain(value: Any) -> Any:
    """Return ``value`` as it looks after a way through JSON: tuples are lists there."""
    return json.loads(json.dumps(value))


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _list(different: list[str]) -> str:
    more = len(different) - _SHOWN
    return "; ".join(different[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
