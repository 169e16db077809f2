"""The server's mutable state: saved after a round, found again by the same settings."""

import json
import logging
import secrets
from pathlib import Path
from typing import Any

from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.round_table import Row
from phoenix_pipeline.optimization.ema import ema_decay, update_ema

logger = logging.getLogger(__name__)

_KEPT = 2
_GROUPS = ("raw/", "ema/", "initial_personal/", "server_optimizer/", "broadcast/")


class RunState:
    """Weights, their average over the rounds, and one row per round and client.

    ``clip_norm`` is what adaptive clipping has come to; None where there is none.
    ``server_optimizer`` holds its moments, none for FedAvg. ``initial_personal`` are layers that
    clients which have not trained yet are to start from; empty where their own initial weights will
    do. ``broadcast`` is what the last round's clients started from, where differences to it are
    sent: before round 1 the initial weights. ``oldest_checkpoint`` is the earliest round that a
    resumed run may continue after: clients keep what they had then. ``key`` tells this run from
    others for as long as it is resumed; nodes keep their state under it.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], raw: dict[str, Tensor], ema_horizon: float
    ) -> None:
        """Start at round 0 with the weights ``raw``."""
        self._folder = folder
        self._settings = settings
        self._horizon = ema_horizon
        self.raw = raw
        self.ema = {name: tensor.clone() for name, tensor in raw.items()}
        self.initial_personal: dict[str, Tensor] = {}
        self.server_optimizer: dict[str, Tensor] = {}
        self.clip_norm: float | None = None
        self.broadcast: dict[str, Tensor] = {}
        self.rounds_done = 0
        self.rows: list[Row] = []
        self.oldest_checkpoint = 0
        self.key = secrets.token_hex(8)

    def resume(self) -> bool:
        """Take over the newest intact checkpoint of the same settings; False if there is none."""
        for path in reversed(self._checkpoints()):
            try:
                tensors, metadata = load_tensors(path)
            except CheckpointError as error:
                logger.warning("%s; trying the one before it", error)
                continue
            if differing := self._differing(metadata["settings"]):
                logger.info("starting anew: %s has a run of other %s", self._folder, differing)
                return False
            self.raw, self.ema, self.initial_personal, self.server_optimizer, self.broadcast = (
                {n.removeprefix(p): t for n, t in tensors.items() if n.startswith(p)}
                for p in _GROUPS
            )
            self.rounds_done = int(metadata["round"])
            self.rows = json.loads(metadata["rows"])
            self.clip_norm = metadata["clip_norm"]
            self.key = metadata["key"]
            self.oldest_checkpoint = min(map(_round_of, self._checkpoints()))
            return True
        return False

    def start_from(
        self, raw: dict[str, Tensor], initial_personal: dict[str, Tensor], row: Row
    ) -> None:
        """Begin with weights that were trained before round 1; ``row`` says how."""
        self.raw = raw
        self.ema = {name: tensor.clone() for name, tensor in raw.items()}
        self.initial_personal = initial_personal
        self.rows.append(row)

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
        states = (*groups, self.broadcast)
        tensors = {
            group + name: tensor
            for group, state in zip(_GROUPS, states, strict=True)
            for name, tensor in state.items()
        }
        save_tensors(
            self._folder / f"round-{self.rounds_done:06d}.safetensors",
            tensors,
            {
                "round": self.rounds_done,
                "settings": self._settings,
                "rows": json.dumps(self.rows),
                "clip_norm": self.clip_norm,
                "key": self.key,
            },
        )
        written = self._checkpoints()
        for path in written[:-_KEPT]:
            path.unlink()
        self.oldest_checkpoint = _round_of(written[-_KEPT:][0])

    def _checkpoints(self) -> list[Path]:
        return sorted(self._folder.glob("round-*.safetensors"))

    def _differing(self, other: dict[str, Any]) -> str:
        keys = sorted(self._settings.keys() | other.keys())
        return ", ".join(k for k in keys if self._settings.get(k) != other.get(k))


def _round_of(path: Path) -> int:
    return int(path.stem.removeprefix("round-"))
