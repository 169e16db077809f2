"""The server's side of less traffic: what clients are sent, and what they then hold.

Both sides always know what a client trains from, bit for bit: the *reference*. A client's update is
its difference to the reference; the server adds the mean update to its own, uncompressed weights,
so that errors of the way down do not pile up in the model.

- ``relative_to: weights`` has no memory: the weights are written anew each round.
- ``relative_to: last_broadcast`` sends the difference between the weights and what its last
  broadcast left a client with. What its codec left out is in the next difference, so no residual
  is needed. Clients of one round may so train from references that differ by what codecs left out;
  a client whose last broadcast the server does not keep gets the weights in full.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Generator, Tensor

from phoenix_pipeline.config.compression import DownlinkConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.codecs import Codec, codec_of
from phoenix_pipeline.federated.compression.updates import apply_update, decode, difference, encode
from phoenix_pipeline.federated.wire import Joined, join

DELTA = "delta"
FULL = "full"


@dataclass(frozen=True)
class Broadcast:
    """One round's message to those clients that hold the same.

    ``reference`` is what each receiver trains from; ``fingerprint`` names it. ``arrays`` are the
    message, of the ``kind`` :data:`FULL` or :data:`DELTA`.
    """

    reference: Joined
    fingerprint: str
    kind: str
    arrays: dict[str, Tensor]


def prepare_broadcast(
    weights: Mapping[str, Tensor],
    previous: Mapping[str, Tensor] | None,
    config: DownlinkConfig,
    generator: Generator,
) -> Broadcast:
    """Return what those of a round's clients are sent that hold ``previous``.

    Args:
        weights: the server's shared arrays; nobody changes them later.
        previous: the reference of their last broadcast; None where it is not known.
        config: codec, and what the message is relative to.
        generator: source of stochastic rounding.
    """
    codec = codec_of(config)
    if config.relative_to == "weights":
        arrays = encode(weights, codec, generator).arrays
        reference = decode(arrays, codec, weights)
        return Broadcast(reference, fingerprint(reference), FULL, arrays)
    if previous is None:
        reference = join(weights)
        whole = encode(reference, None, generator).arrays
        return Broadcast(reference, fingerprint(reference), FULL, whole)
    delta = encode(difference(weights, previous), codec, generator).arrays
    reference = apply_update(previous, decode(delta, codec, weights))
    return Broadcast(reference, fingerprint(reference), DELTA, delta)


def receive_broadcast(
    kind: str,
    arrays: Mapping[str, Tensor],
    expected_fingerprint: str,
    held: Mapping[str, Tensor],
    template: Mapping[str, Tensor],
    config: DownlinkConfig,
) -> Joined:
    """Return the reference, on a client.

    Args:
        kind: :data:`FULL` or :data:`DELTA`.
        arrays: as received.
        expected_fingerprint: of the server's reference.
        held: the reference of the last round that this client took part in; may be empty.
        template: arrays of the model's shared names, shapes and dtypes.
        config: the server's settings.

    Raises FederationError: the arrays cannot be read, or do not lead to the server's reference.
    """
    codec: Codec | None = codec_of(config)
    if kind == DELTA:
        if held.keys() != template.keys():
            raise FederationError(
                "the server sent a difference, but this client holds no earlier broadcast"
            )
        reference = apply_update(held, decode(arrays, codec, template))
    else:
        stateless = config.relative_to == "weights"
        reference = decode(arrays, codec if stateless else None, template)
    got = fingerprint(reference)
    if got != expected_fingerprint:
        raise FederationError(
            f"the weights received have the fingerprint {got}, the server's "
            f"{expected_fingerprint}; this client does not hold the broadcast that the difference "
            "was taken from"
        )
    return reference


def fingerprint(arrays: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits that name the arrays and their values."""
    joined = join(arrays).cpu()
    digest = hashlib.sha256(joined.layout.fingerprint.encode())
    for key in sorted(joined.vectors):
        digest.update(joined.vectors[key].numpy().data)
    return digest.hexdigest()[:16]


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
