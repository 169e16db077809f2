"""The way down with less traffic: what clients are sent, and what they make of it.

Both sides always know what a client trains from, bit for bit: the *reference*. A client's update is
its difference to the reference; the server adds the mean update to its own, uncompressed weights,
so that errors of the way down do not pile up in the model.

- ``relative_to: weights`` has no memory: the weights are written anew each round.
- ``relative_to: last_broadcast`` sends the difference between the weights and what its last
  broadcast left a client with. What its codec left out is in the next difference, so no residual
  is needed. Clients of one round may so train from references that differ by what codecs left out;
  a client whose last broadcast the server does not keep gets the weights in full.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Generator, Tensor

from phoenix_pipeline.config.compression import DownlinkConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.codecs import codec_of
from phoenix_pipeline.federated.compression.updates import apply_update, decode, difference, encode
from phoenix_pipeline.federated.wire import Joined, fingerprint, join

DELTA = "delta"
FULL = "full"


@dataclass(frozen=True)
class Broadcast:
    """One round's message to those clients that hold the same.

    ``reference`` is what each receiver trains from; ``fingerprint`` names it. ``vectors`` are the
    message, of the ``kind`` :data:`FULL` or :data:`DELTA`.
    """

    reference: Joined
    fingerprint: str
    kind: str
    vectors: Mapping[str, Tensor]


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
    codec, kind = codec_of(config), FULL
    if config.relative_to == "weights":
        vectors = encode(weights, codec, generator).vectors
        reference = decode(vectors, codec, weights)
    elif previous is None:
        reference = join(weights)
        vectors = reference.vectors
    else:
        kind = DELTA
        vectors = encode(difference(weights, previous), codec, generator).vectors
        reference = apply_update(previous, decode(vectors, codec, weights))
    return Broadcast(reference, fingerprint(reference), kind, vectors)


def receive_broadcast(
    kind: str,
    vectors: Mapping[str, Tensor],
    expected_fingerprint: str,
    held: Mapping[str, Tensor],
    template: Mapping[str, Tensor],
    config: DownlinkConfig,
) -> Joined:
    """Return the reference, on a client.

    Args:
        kind: :data:`FULL` or :data:`DELTA`.
        vectors: as received.
        expected_fingerprint: of the server's reference.
        held: the reference of the last round that this client took part in; may be empty.
        template: arrays of the model's shared names, shapes and dtypes.
        config: the server's settings.

    Raises FederationError: the arrays cannot be read, or do not lead to the server's reference.
    """
    codec = codec_of(config)
    if kind == DELTA:
        if held.keys() != template.keys():
            raise FederationError(
                "the server sent a difference, but this client holds no earlier broadcast"
            )
        reference = apply_update(held, decode(vectors, codec, template))
    else:
        stateless = config.relative_to == "weights"
        reference = decode(vectors, codec if stateless else None, template)
    got = fingerprint(reference)
    if got != expected_fingerprint:
        raise FederationError(
            f"the weights received have the fingerprint {got}, the server's "
            f"{expected_fingerprint}; this client does not hold the broadcast that the difference "
            "was taken from"
        )
    return reference
