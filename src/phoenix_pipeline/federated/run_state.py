"""The server's mutable state: saved after a round, found again by the same settings alone."""

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from phoenix_pipeline.checkpoints import load_metadata, load_tensors
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.compression.held_references import HeldReferences
from phoenix_pipeline.federated.history import WARM_UP_ROUND, History, Row
from phoenix_pipeline.federated.wire import load_packed, save_packed
from phoenix_pipeline.optimization.schedules import ema_decay, update_ema

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

HISTORY_FILE = "history.jsonl"
_KEPT = 2
_GROUPS = ("raw/", "ema/", "initial_personal/", "server_optimizer/", "held/", "strategies/")


class RunState:
    """Weights, their average over the rounds, and the history: one row per round and client.

    There is no state of random numbers: seeds are derived from the run's seed and the round.
    ``clip_norm`` is what clipping by norm hands to the next round; None where there is none.
    ``server_optimizer`` holds its moments, none for FedAvg, ``strategies`` what they keep at the
    server, named ``<strategy>/<array>``. ``initial_personal`` are layers that clients which have
    not trained yet are to start from; empty where their own initial weights will do. ``held`` is
    what clients hold, where differences to it are sent. ``oldest_checkpoint`` is the earliest round
    that a resumed run may continue after: clients keep what they had then. ``key`` tells this run
    from others for as long as it is resumed; nodes keep their state under it. ``folder`` is where
    all of this is saved.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], raw: dict[str, Tensor], ema_horizon: float
    ) -> None:
        self.folder = folder
        self._settings = settings
        self._horizon = ema_horizon
        self.raw = raw
        self.ema = {name: tensor.clone() for name, tensor in raw.items()}
        self.initial_personal: dict[str, Tensor] = {}
        self.server_optimizer: dict[str, Tensor] = {}
        self.clip_norm: float | None = None
        self.held = HeldReferences()
        self.strategies: dict[str, Tensor] = {}
        self.rounds_done = 0
        self.history = History(folder / HISTORY_FILE)
        self.oldest_checkpoint = 0
        self.key = secrets.token_hex(8)

    def resume(self) -> bool:
        """Take over the newest checkpoint, if any; raises CheckpointError: :func:`is_resumable`."""
        if not is_resumable(self.folder, self._settings):
            return False
        for path in reversed(checkpoints(self.folder)):
            try:
                self._take_over(path)
            except CheckpointError as error:
                logger.warning("%s; trying the one before it", error)
                continue
            self.oldest_checkpoint = min(map(_round_of, checkpoints(self.folder)))
            return True
        raise unreadable(self.folder)

    def _take_over(self, path: Path) -> None:
        tensors, metadata = load_packed(path)
        self.history = History.restore(self.folder / HISTORY_FILE, metadata["history"])
        groups = [
            {n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)} for p in _GROUPS
        ]
        self.raw, self.ema, self.initial_personal, self.server_optimizer = groups[:4]
        self.held = HeldReferences.restore(groups[4], metadata["held"])
        self.strategies = groups[5]
        self.rounds_done = int(metadata["round"])
        self.clip_norm = metadata["clip_norm"]
        self.key = metadata["key"]

    def start_from(
        self, raw: dict[str, Tensor], initial_personal: dict[str, Tensor], row: Row
    ) -> None:
        """Begin with weights that were trained before round 1; ``row`` says how."""
        self.raw = raw
        self.ema = {name: tensor.clone() for name, tensor in raw.items()}
        self.initial_personal = initial_personal
        self.history.add(WARM_UP_ROUND, [row])

    def finish_round(self, raw: dict[str, Tensor]) -> None:
        """Take over the round's weights and move the average."""
        self.raw = raw
        names = list(self.ema)
        update_ema(
            [self.ema[n] for n in names],
            [raw[n] for n in names],
            ema_decay(self.rounds_done, self._horizon),
        )

    def save(self) -> None:
        """Write a checkpoint of the rounds done and drop all but the last two."""
        groups = (self.raw, self.ema, self.initial_personal, self.server_optimizer)
        held, who_holds = self.held.save()
        states = (*groups, held, self.strategies)
        tensors = {
            group + name: tensor
            for group, state in zip(_GROUPS, states, strict=True)
            for name, tensor in state.items()
        }
        save_packed(
            self.folder / f"round-{self.rounds_done:06d}.safetensors",
            tensors,
            {
                "round": self.rounds_done,
                "settings": self._settings,
                "history": self.history.save(),
                "clip_norm": self.clip_norm,
                "held": who_holds,
                "key": self.key,
            },
        )
        written = checkpoints(self.folder)
        for path in written[:-_KEPT]:
            path.unlink()
        self.oldest_checkpoint = _round_of(written[-_KEPT:][0])


def _round_of(path: Path) -> int:
    return int(path.stem.removeprefix("round-"))


def checkpoints(folder: Path) -> list[Path]:
    """Return the server's checkpoints in ``folder``, oldest first."""
    return sorted(folder.glob("round-*.safetensors"))


def is_resumable(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Return whether the newest checkpoint in ``folder`` is of ``asked``; False: nothing to resume.

    Raises CheckpointError: it is of an unfinished run of other settings, or none is readable.
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
