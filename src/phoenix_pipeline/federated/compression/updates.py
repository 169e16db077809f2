"""Compressed model updates: what training changed, written by a codec, with error feedback.

Codes of one byte are deflated. Updates are near normal, so most codes are near zero: Huffman's code
(RFC 1951) without a search for repetitions, of which noise has none, comes within 1 to 3 % of their
entropy.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Size, Tensor, dtype

from phoenix_pipeline.errors import FederationError, TrainingError
from phoenix_pipeline.federated.compression.channels import Channels, channels_of
from phoenix_pipeline.federated.compression.codecs import Codec, codec_for
from phoenix_pipeline.federated.wire import Joined, Layout, is_finite, join
from phoenix_pipeline.strategies.strategy import is_state

_CODES = ("uint8", "int8")
_LEVEL, _RAW, _MEMORY = 9, -15, 9
_WHOLE = "whole"


def deflate(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``vectors``, by the name of their dtype, with those of codes as uint8 [bytes]."""
    return {key: _shrink(v) if key in _CODES else v for key, v in vectors.items()}


def inflate(
    vectors: Mapping[str, Tensor], lengths: Mapping[str, tuple[int, torch.dtype]]
) -> dict[str, Tensor]:
    """Return what :func:`deflate` was given, whose codes must be as many as ``lengths`` says.

    No more memory is taken than for those. Vectors that ``lengths`` does not know stay as they are.

    Raises:
        FederationError: a vector is no such bytes, or leads to another number of codes.
    """
    return {
        key: _expand(key, v, *lengths[key]) if key in _CODES and key in lengths else v
        for key, v in vectors.items()
    }


def _shrink(codes: Tensor) -> Tensor:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, _MEMORY, zlib.Z_HUFFMAN_ONLY)
    packed = packer.compress(codes.numpy().tobytes()) + packer.flush()
    return torch.from_numpy(np.frombuffer(packed, np.uint8).copy())


def _expand(key: str, packed: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    if packed.dtype != torch.uint8 or packed.dim() != 1:
        raise FederationError(
            f"the message's array {key} is {packed.dtype} {tuple(packed.shape)}; deflated codes "
            "are one vector of torch.uint8"
        )
    unpacker = zlib.decompressobj(_RAW)
    try:
        # One byte more tells too long a message from one that ends here.
        found = unpacker.decompress(packed.numpy().tobytes(), length + 1)
    except zlib.error as error:
        raise FederationError(f"the message's array {key} cannot be inflated: {error}") from error
    if len(found) != length or not unpacker.eof or unpacker.unused_data:
        raise FederationError(
            f"the message's array {key} inflates to {'over ' if len(found) > length else ''}"
            f"{min(len(found), length)} codes; the model and the settings need {length}, and "
            "nothing after them"
        )
    return torch.from_numpy(np.frombuffer(found, np.uint8).copy()).view(dtype)


@dataclass(frozen=True)
class Encoded:
    """``arrays`` for the wire, one vector per dtype; ``residual``: what they leave out, by name."""

    arrays: dict[str, Tensor]
    residual: dict[str, Tensor]


@dataclass(frozen=True)
class _Plan:
    """How arrays go into a message: ``written`` by the codec, as ``channels``, others ``whole``."""

    written: tuple[str, ...]
    channels: Channels
    whole: tuple[str, ...]
    layout: Layout


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
    for name, array in update.items():
        if array.is_floating_point() and not is_finite(array):
            raise TrainingError(f"the update of {name} holds a value that is not finite")
    plan = _plan_of(update, codec)
    parts = {f"{name}/{_WHOLE}": update[name] for name in plan.whole}
    left = dict(residual or {})
    if codec and plan.written:
        values = plan.channels.join([update[name] for name in plan.written])
        if left:
            # With usplit a client may write an array for the first time in a later round.
            earlier = (left.get(n, torch.zeros(update[n].shape)) for n in plan.written)
            values += plan.channels.join(list(earlier))
        written = codec.encode(values, plan.channels, generator)
        for part, arrays in written.items():
            parts |= {f"{n}/{part}": a for n, a in zip(plan.written, arrays, strict=True)}
        if residual is not None:
            rest = plan.channels.cut(values - codec.decode(written, plan.channels))
            left |= zip(plan.written, rest, strict=True)
    vectors = join(parts, plan.layout).vectors
    return Encoded(deflate(vectors) if codec else vectors, left)


def decode(
    arrays: Mapping[str, Tensor], codec: Codec | None, template: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the update in ``arrays``, with the names, shapes and dtypes of ``template``.

    Raises:
        FederationError: ``arrays`` are not what :func:`encode` writes for such arrays: other names,
            shapes or dtypes, a value out of range or not finite.
    """
    plan = _plan_of(template, codec)
    parts = Joined(inflate(arrays, plan.layout.lengths) if codec else arrays, plan.layout)
    for key, vector in parts.vectors.items():
        if vector.is_floating_point() and not is_finite(vector):
            raise FederationError(f"the message's array {key} holds a value that is not finite")
    update = {name: parts[f"{name}/{_WHOLE}"].clone() for name in plan.whole}
    if codec and plan.written:
        kinds = codec.parts(plan.channels.shapes[0])
        own = {kind: [parts[f"{name}/{kind}"] for name in plan.written] for kind in kinds}
        values = codec.decode(own, plan.channels)
        if not is_finite(values):
            raise FederationError("the message decodes to a value that is not finite")
        for name, array in zip(plan.written, plan.channels.cut(values), strict=True):
            update[name] = array.to(template[name].dtype)
    return {name: update[name] for name in template}


def encoded_bytes(template: Mapping[str, Tensor], codec: Codec | None) -> int:
    """Return how many bytes :func:`encode` writes for arrays like ``template``, headers aside.

    Of a codec that writes codes of one byte: before they are deflated.
    """
    return _plan_of(template, codec).layout.nbytes


def _plan_of(arrays: Mapping[str, Tensor], codec: Codec | None) -> _Plan:
    return _plan(tuple((n, arrays[n].shape, arrays[n].dtype) for n in sorted(arrays)), codec)


@lru_cache(maxsize=64)
def _plan(arrays: tuple[tuple[str, Size, dtype], ...], codec: Codec | None) -> _Plan:
    written: list[tuple[str, Size]] = []
    whole: list[str] = []
    described: dict[str, tuple[Size, dtype]] = {}
    for name, shape, kind in arrays:
        writer = codec_for(name, torch.empty(shape, dtype=kind, device="meta"), codec)
        if writer is None:
            whole.append(name)
            described[f"{name}/{_WHOLE}"] = (shape, kind)
            continue
        written.append((name, shape))
        described |= {f"{name}/{part}": each for part, each in writer.parts(shape).items()}
    channels = channels_of(tuple(shape for _, shape in written))
    return _Plan(tuple(name for name, _ in written), channels, tuple(whole), Layout(described))
