"""Compressed model updates: what training changed, written by a codec, with error feedback."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Generator, Size, Tensor, dtype

from phoenix_pipeline.errors import FederationError, TrainingError
from phoenix_pipeline.federated.compression.codecs import Codec, codec_for, is_state
from phoenix_pipeline.federated.wire import Joined, Layout, is_finite, join

_WHOLE = "whole"


@dataclass(frozen=True)
class Encoded:
    """``arrays`` for the wire, one vector per dtype; ``residual``: what they leave out, by name."""

    arrays: dict[str, Tensor]
    residual: dict[str, Tensor]


def difference(trained: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``trained - reference`` for the arrays of ``trained``.

    Integers and BatchNorm statistics are no sum of updates: they are returned as they are.
    """
    return {
        name: array.clone() if is_state(name, array) else array - reference[name]
        for name, array in trained.items()
    }


def apply_update(
    reference: Mapping[str, Tensor], update: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what :func:`difference` was taken of: the arrays of ``update``, in their dtypes."""
    return {
        name: array.clone() if is_state(name, array) else reference[name] + array
        for name, array in update.items()
    }


def encode(
    update: Mapping[str, Tensor],
    codec: Codec | None,
    generator: Generator,
    residual: Mapping[str, Tensor] | None = None,
) -> Encoded:
    """Return ``update`` as written by ``codec``.

    With a ``residual`` (error feedback, arXiv 1901.09847), what earlier messages left out is added
    first, and what this one leaves out is returned; arrays that are not in ``update`` keep theirs.
    Sums of decoded updates and the last residual are then the sum of all updates. Without one
    (None) what is left out is lost, and the returned residual is empty.

    Args:
        update: CPU tensors by name.
        codec: how; None and arrays that it would not make smaller: as they are.
        generator: source of stochastic rounding, on the CPU.
        residual: float32 arrays by name from the last call, empty before the first.

    Raises:
        TrainingError: a value is not finite.
    """
    parts: dict[str, Tensor] = {}
    left = dict(residual or {})
    for name in sorted(update):
        array = update[name]
        if array.is_floating_point() and not is_finite(array):
            raise TrainingError(f"the update of {name} holds a value that is not finite")
        writer = codec_for(name, array, codec)
        if writer is None:
            parts[f"{name}/{_WHOLE}"] = array
            continue
        corrected = array.float() + left[name] if name in left else array.float()
        written = writer.encode(corrected, generator)
        parts |= {f"{name}/{part}": tensor for part, tensor in written.items()}
        if residual is not None:
            left[name] = corrected - writer.decode(written, array.shape)
    return Encoded(join(parts).vectors, left)


def decode(
    arrays: Mapping[str, Tensor], codec: Codec | None, template: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the update in ``arrays``, with the names, shapes and dtypes of ``template``.

    Raises:
        FederationError: ``arrays`` are not what :func:`encode` writes for such arrays: other names,
            shapes or dtypes, a value out of range or not finite.
    """
    parts = Joined(arrays, layout(template, codec))
    for key, vector in parts.vectors.items():
        if vector.is_floating_point() and not is_finite(vector):
            raise FederationError(f"the message's array {key} holds a value that is not finite")
    update = {}
    for name, like in template.items():
        reader = codec_for(name, like, codec)
        if reader is None:
            update[name] = parts[f"{name}/{_WHOLE}"].clone()
            continue
        own = {part: parts[f"{name}/{part}"] for part in reader.parts(like.shape)}
        try:
            update[name] = reader.decode(own, like.shape).to(like.dtype)
        except FederationError as error:
            raise FederationError(f"array {name}: {error}") from error
        if not is_finite(update[name]):
            raise FederationError(f"array {name} decodes to a value that is not finite")
    return update


def encoded_bytes(template: Mapping[str, Tensor], codec: Codec | None) -> int:
    """Return how many bytes :func:`encode` writes for arrays like ``template``, headers aside."""
    return layout(template, codec).nbytes


def layout(template: Mapping[str, Tensor], codec: Codec | None) -> Layout:
    """Return shape and dtype of every part that is written for arrays like ``template``."""
    described: dict[str, tuple[Size, dtype]] = {}
    for name, array in template.items():
        writer = codec_for(name, array, codec)
        parts = writer.parts(array.shape) if writer else {_WHOLE: (array.shape, array.dtype)}
        described |= {f"{name}/{part}": shape for part, shape in parts.items()}
    return Layout(described)
