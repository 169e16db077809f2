"""What the clients of this process keep between rounds, in memory; files are for resumed runs.

A client would else write its state in one round and read it in the next: more bytes than its
message, each hashed twice.
"""

import threading
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from phoenix_pipeline.hardware import available_memory

_MEMORY_SHARE = 0.25


class KeptStates:
    """The newest state of each client, while they take a quarter of the free memory at most.

    ``is_of_checkpoint``: whether the server writes a checkpoint after a round: a run goes on from
    there, so states of these rounds have to be in files.
    """

    def __init__(self, is_of_checkpoint: Callable[[int], bool], device: torch.device) -> None:
        self.is_of_checkpoint = is_of_checkpoint
        self._states: dict[int, tuple[int, Mapping[str, Tensor]]] = {}
        self._in_files: dict[int, int] = {}
        self._changing = threading.Lock()
        devices = {torch.device("cpu"), device}
        self._room = _MEMORY_SHARE * min(available_memory(each) for each in devices)

    def keep(self, client_id: int, server_round: int, state: Mapping[str, Tensor]) -> bool:
        """Keep ``state``; return False where there is no room for it: then it has to be written."""
        with self._changing:
            newest, old = self._states.get(client_id, (0, {}))
            if server_round < newest:
                return False
            self._room += _bytes_of(old)
            self._states.pop(client_id, None)
            size = _bytes_of(state)
            if size > self._room:
                return False
            self._room -= size
            self._states[client_id] = (server_round, state)
            return True

    def newest(self, client_id: int, before_round: int) -> Mapping[str, Tensor] | None:
        """Return the client's state of the newest round before ``before_round``, if kept here."""
        server_round, state = self._states.get(client_id, (before_round, {}))
        return state if server_round < before_round else None

    def is_in_file(self, client_id: int, server_round: int) -> None:
        """Note that the client's state of ``server_round`` was written."""
        self._in_files[client_id] = server_round

    def unwritten(self) -> Iterator[tuple[int, int, Mapping[str, Tensor]]]:
        """Yield client, round and state of those that no file has."""
        for client_id, (server_round, state) in list(self._states.items()):
            if self._in_files.get(client_id) != server_round:
                yield client_id, server_round, state


def _bytes_of(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
