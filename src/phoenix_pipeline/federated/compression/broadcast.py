"""The server's side of less traffic: what clients are sent, and what they then hold.

Both sides always know what a client trains from, bit for bit: the *reference*. A client's update is
its difference to the reference; the server adds the mean update to its own, uncompressed weights,
so that errors of the way down do not pile up in the model.

- ``relative_to: weights`` has no memory: the weights are written anew each round.
- ``relative_to: last_broadcast`` sends the difference between the weights and what the last
  broadcast left the clients with. What its codec left out is in the next difference, so no residual
  is needed. A client follows only if it holds the broadcast just before; any other gets the
  reference in full.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Generator, Tensor

from phoenix_pipeline.config.compression import DownlinkConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.codecs import Codec, codec_of
from phoenix_pipeline.federated.compression.updates import apply_update, decode, difference, encode

DELTA = "delta"
FULL = "full"


@dataclass(frozen=True)
class Broadcast:
    """One round's message down.

    ``reference`` is what each receiver trains from; ``fingerprint`` names it. ``full`` is for any
    client, ``delta`` for those that hold the broadcast before; None where there is no such message.
    """

    reference: dict[str, Tensor]
    fingerprint: str
    full: dict[str, Tensor]
    delta: dict[str, Tensor] | None = None

    def arrays_for(self, holds_previous: bool) -> tuple[str, dict[str, Tensor]]:
        """Return the kind of message for a client, and its arrays."""
        if holds_previous and self.delta is not None:
            return DELTA, self.delta
        return FULL, self.full


def prepare_broadcast(
    weights: Mapping[str, Tensor],
    previous: Mapping[str, Tensor] | None,
    config: DownlinkConfig,
    generator: Generator,
) -> Broadcast:
    """Return what a round's clients are sent.

    Args:
        weights: the server's shared arrays.
        previous: the last broadcast's reference; None or empty before the first.
        config: codec, and what the message is relative to.
        generator: source of stochastic rounding.
    """
    codec = codec_of(config)
    if config.relative_to == "weights":
        arrays = encode(weights, codec, generator).arrays
        reference = decode(arrays, codec, weights)
        return Broadcast(reference, fingerprint(reference), arrays)
    if not previous:
        reference = {name: array.clone() for name, array in weights.items()}
        return Broadcast(reference, fingerprint(reference), _whole(reference, generator))
    delta = encode(difference(weights, previous), codec, generator).arrays
    reference = apply_update(previous, decode(delta, codec, weights))
    return Broadcast(reference, fingerprint(reference), _whole(reference, generator), delta)


def receive_broadcast(
    kind: str,
    arrays: Mapping[str, Tensor],
    expected_fingerprint: str,
    held: Mapping[str, Tensor],
    template: Mapping[str, Tensor],
    config: DownlinkConfig,
) -> dict[str, Tensor]:
    """Return the reference, on a client.

    Args:
        kind: :data:`FULL` or :data:`DELTA`.
        arrays: as received.
        expected_fingerprint: of the server's reference.
        held: the reference of the last round that this client took part in; may be empty.
        template: arrays of the model's shared names, shapes and dtypes.
        config: the server's settings.

    Raises:
        FederationError: the arrays cannot be read, or do not lead to the server's reference.
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
    """Return 16 hex digits that name the arrays' values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _whole(reference: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
    return encode(reference, None, generator).arrays
