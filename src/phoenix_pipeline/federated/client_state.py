"""What a client keeps between rounds: moments, personal layers, what codecs and strategies need.

The clients of this process keep it in memory; files are for resumed runs. A client would else write
its state in one round and read it in the next: more bytes than its message, each hashed twice.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.wire import join, load_packed, num_bytes, save_packed
from phoenix_pipeline.hardware import available_memory
from phoenix_pipeline.optimization.schedules import ema_decay, update_ema

logger = logging.getLogger(__name__)

_UPDATES = "personal_updates"
_PROGRESS = "broadcast_progress"
_GROUPS = ("optimizer", "personal", "personal_ema", "residual", "broadcast", "strategies")
_MEMORY_SHARE = 0.25


@dataclass
class ClientState:
    """Tensors by name; ``updates`` counts the rounds that went into ``personal_ema``.

    ``residual`` is what codecs left out of earlier updates, ``broadcast`` what the client received
    in its last round, at the run's progress ``broadcast_progress`` in [0, 1]. ``strategies`` is
    what the run's strategies keep, named ``<strategy>/<array>``.
    """

    optimizer: dict[str, Tensor] = field(default_factory=dict)
    personal: dict[str, Tensor] = field(default_factory=dict)
    personal_ema: dict[str, Tensor] = field(default_factory=dict)
    residual: Mapping[str, Tensor] = field(default_factory=dict)
    broadcast: Mapping[str, Tensor] = field(default_factory=dict)
    strategies: dict[str, Tensor] = field(default_factory=dict)
    updates: int = 0
    broadcast_progress: float = 0.0

    def keep_broadcast(self, received: Mapping[str, Tensor], progress: float) -> None:
        """Remember what this round starts from."""
        self.broadcast = join(received)
        self.broadcast_progress = progress

    def keep_personal(self, trained: Mapping[str, Tensor], ema_horizon: float) -> None:
        """Take over the personal arrays as trained in this round, and move their average."""
        self.updates += 1
        self.personal = {name: t.detach().cpu().clone() for name, t in trained.items()}
        # A copy: what was kept before stands if this round fails.
        before = self.personal_ema or self.personal
        self.personal_ema = {name: tensor.clone() for name, tensor in before.items()}
        names = list(self.personal)
        update_ema(
            [self.personal_ema[n] for n in names],
            [self.personal[n] for n in names],
            ema_decay(self.updates, ema_horizon),
        )

    def copy(self) -> "ClientState":
        """Return the same state for another round; training writes its moments anew."""
        return replace(self, optimizer=dict(self.optimizer))

    def __bool__(self) -> bool:
        return any(group for _, group in self._groups())

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(num_bytes(group) for _, group in self._groups())

    def _groups(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        for name in _GROUPS:
            yield name, getattr(self, name)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors of one file; empty if there is nothing to keep."""
        tensors = {f"{group}/{n}": t for group, ts in self._groups() for n, t in ts.items()}
        if self.updates:
            tensors[_UPDATES] = torch.tensor(self.updates)
        if self.broadcast_progress:
            tensors[_PROGRESS] = torch.tensor(self.broadcast_progress, dtype=torch.float64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "ClientState":
        """Return the state of :meth:`to_tensors`."""
        state = cls(
            updates=int(tensors.get(_UPDATES, 0)),
            broadcast_progress=float(tensors.get(_PROGRESS, 0.0)),
        )
        for path, tensor in tensors.items():
            group, _, name = path.partition("/")
            if name:
                getattr(state, group)[name] = tensor
        return state


class _Kept(NamedTuple):
    server_round: int
    state: ClientState
    nbytes: int


class KeptStates:
    """The newest state of each client, while they take a quarter of the free memory at most.

    ``is_of_checkpoint``: whether the server writes a checkpoint after a round: a run goes on from
    there, so states of these rounds have to be in files. ``in_files``: the newest round by client
    whose state was written.
    """

    def __init__(self, is_of_checkpoint: Callable[[int], bool], device: torch.device) -> None:
        self.is_of_checkpoint = is_of_checkpoint
        self._states: dict[int, _Kept] = {}
        self.in_files: dict[int, int] = {}
        self._changing = threading.Lock()
        devices = {torch.device("cpu"), device}
        self._room = _MEMORY_SHARE * min(available_memory(each) for each in devices)

    def keep(self, client_id: int, server_round: int, state: ClientState) -> bool:
        """Keep ``state``; return False where there is no room for it: then it has to be written."""
        kept = _Kept(server_round, state, state.nbytes)
        with self._changing:
            old = self._states.get(client_id)
            if old and server_round < old.server_round:
                return False
            self._states.pop(client_id, None)
            self._room += old.nbytes if old else 0
            if kept.nbytes > self._room:
                return False
            self._room -= kept.nbytes
            self._states[client_id] = kept
            return True

    def newest(self, client_id: int, before_round: int) -> ClientState | None:
        """Return the client's state of the newest round before ``before_round``, if kept here."""
        kept = self._states.get(client_id)
        return kept.state.copy() if kept and kept.server_round < before_round else None

    def unwritten(self) -> Iterator[tuple[int, int, ClientState]]:
        """Yield client, round and state of those that no file has."""
        for client_id, kept in list(self._states.items()):
            if self.in_files.get(client_id) != kept.server_round:
                yield client_id, kept.server_round, kept.state


@dataclass(frozen=True)
class ClientStates:
    """What clients keep: in files below ``folder``, and in this process where ``kept``."""

    folder: Path
    kept: KeptStates | None = None

    def load(self, client_id: int, before_round: int) -> ClientState:
        """Return what was kept in the newest round before ``before_round``; empty if nothing.

        Where that file is broken, the one before it is used, which is said.
        Raises CheckpointError: all files are broken.
        """
        if self.kept and (state := self.kept.newest(client_id, before_round)):
            return state
        rounds = [number for number in self._saved_rounds(client_id) if number < before_round]
        for number in sorted(rounds, reverse=True):
            try:
                return ClientState.from_tensors(load_packed(self._file(client_id, number))[0])
            except CheckpointError as error:
                logger.warning("client %s: %s; trying the state before it", client_id, error)
        if rounds:
            raise CheckpointError(
                f"client {client_id} has no intact state in {self.folder}; remove its "
                "folder there to let it start anew"
            )
        return ClientState()

    def save(
        self, client_id: int, server_round: int, oldest_checkpoint: int, state: ClientState
    ) -> None:
        """Keep ``state``, and the newest up to ``oldest_checkpoint``, which a resumed run needs."""
        if not state:
            return
        kept = self.kept and self.kept.keep(client_id, server_round, state)
        if not kept or (self.kept and self.kept.is_of_checkpoint(server_round)):
            self._write(client_id, server_round, oldest_checkpoint, state)

    def write_unwritten(self, oldest_checkpoint: int) -> None:
        """Write what no file has of the clients' newest states, before a checkpoint."""
        for client_id, server_round, state in self.kept.unwritten() if self.kept else ():
            self._write(client_id, server_round, oldest_checkpoint, state)

    def _write(
        self, client_id: int, server_round: int, oldest_checkpoint: int, state: ClientState
    ) -> None:
        file = self._file(client_id, server_round)
        save_packed(file, state.to_tensors(), {"round": server_round})
        if self.kept:
            self.kept.in_files[client_id] = server_round
        saved = self._saved_rounds(client_id)
        needed = max((number for number in saved if number <= oldest_checkpoint), default=0)
        for number in saved:
            if number < needed:
                self._file(client_id, number).unlink(missing_ok=True)

    def _saved_rounds(self, client_id: int) -> list[int]:
        files = (self.folder / str(client_id)).glob("round-*")
        return [int(path.stem.removeprefix("round-")) for path in files]

    def _file(self, client_id: int, server_round: int) -> Path:
        return self.folder / str(client_id) / f"round-{server_round}.safetensors"
