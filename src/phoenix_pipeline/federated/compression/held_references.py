"""What the server knows of the references that clients hold, for differences to them."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from phoenix_pipeline.federated.compression.broadcast import Broadcast
from phoenix_pipeline.federated.wire import fingerprint, join


class _Hold(NamedTuple):
    fingerprint: str
    server_round: int


class HeldReferences:
    """The references of the last rounds, and which of them each client trained from last.

    Clients that took part in different rounds hold different ones; those of one round whose
    earlier ones were the same hold the same, and it is kept once.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Mapping[str, Tensor]] = {}
        self._at_first: _Hold | None = None
        # None: it is not known what the client holds.
        self._of: dict[int, _Hold | None] = {}

    def start(self, payload: Mapping[str, Tensor]) -> None:
        """Let every client hold ``payload`` before round 1."""
        own = join(payload)
        self._at_first = _Hold(fingerprint(own), 0)
        self._arrays = {self._at_first.fingerprint: own}

    def of(self, client: int, current: int, max_missed: int) -> str:
        """Return the fingerprint of what ``client`` holds; "" if unknown or too old."""
        hold = self._of.get(client, self._at_first)
        return hold.fingerprint if hold and _is_recent(hold, current, max_missed) else ""

    def arrays(self, name: str) -> Mapping[str, Tensor] | None:
        """Return the reference with the fingerprint ``name``; None for ""."""
        return self._arrays[name] if name else None

    def remember(
        self,
        sent: Mapping[int, Broadcast],
        trained: Iterable[int],
        current: int,
        max_missed: int,
    ) -> None:
        """Take over what round ``current`` left the clients with.

        Args:
            sent: by client.
            trained: clients that certainly hold it; of the others in ``sent`` nothing is known.
            current: the round, which is done.
            max_missed: as in :meth:`of`; what no client can need in the next round is dropped.
        """
        known = set(trained)
        for client, broadcast in sent.items():
            hold = _Hold(broadcast.fingerprint, current)
            self._of[client] = hold if client in known else None
            self._arrays[hold.fingerprint] = broadcast.reference
        holds = [hold for hold in (self._at_first, *self._of.values()) if hold]
        needed = {h.fingerprint for h in holds if _is_recent(h, current + 1, max_missed)}
        self._arrays = {name: own for name, own in self._arrays.items() if name in needed}

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return arrays, named ``<fingerprint>/<array>``, and what JSON says of them."""
        tensors = {f"{f}/{n}": t for f, own in self._arrays.items() for n, t in own.items()}
        clients = {str(client): hold for client, hold in self._of.items()}
        return tensors, {"at_first": self._at_first, "clients": clients}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> "HeldReferences":
        """Return what :meth:`save` was called on."""
        held, arrays = cls(), dict[str, dict[str, Tensor]]()
        for path, tensor in tensors.items():
            name, _, array = path.partition("/")
            arrays.setdefault(name, {})[array] = tensor
        held._arrays = {name: join(own) for name, own in arrays.items()}
        held._at_first = _hold(told["at_first"])
        held._of = {int(client): _hold(hold) for client, hold in told["clients"].items()}
        return held


def _is_recent(hold: _Hold, current: int, max_missed: int) -> bool:
    return current - hold.server_round <= 1 + max_missed


def _hold(saved: Any) -> _Hold | None:
    return None if saved is None else _Hold(str(saved[0]), int(saved[1]))
