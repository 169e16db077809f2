"""Compressed model updates: what training changed, written by a codec, with error feedback."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor

from phoenix_pipeline.errors import FederationError, SettingsError, TrainingError
from phoenix_pipeline.federated.compression.channels import Channels, channels_of
from phoenix_pipeline.federated.compression.codecs import Codec
from phoenix_pipeline.federated.compression.deflate import deflate, inflate
from phoenix_pipeline.federated.wire import (
    Joined,
    Layout,
    Lengths,
    check_vectors,
    is_dtype_name,
    is_finite,
    join,
    select,
)
from phoenix_pipeline.strategies.strategy import is_state


@dataclass(frozen=True)
class Encoded:
    """``vectors`` for the wire; ``residual``: what they leave out, by array."""

    vectors: Mapping[str, Tensor]
    residual: Mapping[str, Tensor]


@dataclass(frozen=True)
class MessagePlan:
    """How arrays go into a message: some written by the codec, as ``channels``, others ``whole``.

    ``runs``: where the written ones lie, in order of their names: the vector's key, start and end.
    ``left`` is the layout of what a message leaves out, one vector in the same order. ``parts`` are
    the codec's vectors, ``lengths`` all of the message: the codec's, and of the others one per
    dtype.
    """

    channels: Channels
    runs: tuple[tuple[str, int, int], ...]
    left: Layout
    whole: Layout
    parts: Lengths

    @property
    def lengths(self) -> Lengths:
        """Length and dtype of each vector of the message, by its name."""
        return {**self.whole.lengths, **self.parts}

    def values(self, arrays: Joined) -> Tensor:
        """Return the float32 values [n] of the written arrays, in memory of their own."""
        return torch.cat([arrays.vectors[key][start:end].float() for key, start, end in self.runs])

    def put(self, values: Tensor, vectors: Mapping[str, Tensor]) -> None:
        """Write ``values`` [n] to where :meth:`values` reads them."""
        lengths = [end - start for _, start, end in self.runs]
        for (key, start, end), part in zip(self.runs, values.split(lengths), strict=True):
            vectors[key][start:end] = part


def difference(trained: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Joined:
    """Return ``trained - reference``; integers and BatchNorm statistics as they are."""
    new, old = join(trained), join(select(reference, trained))
    vectors = {
        key: vector - old.vectors[key] if vector.is_floating_point() else vector
        for key, vector in new.vectors.items()
    }
    return _with_states_of(new, vectors)


def apply_update(reference: Mapping[str, Tensor], update: Mapping[str, Tensor]) -> Joined:
    """Return what :func:`difference` was taken of: the arrays of ``update``, in their dtypes."""
    old, changed = join(select(reference, update)), join(update)
    vectors = {
        key: old.vectors[key] + vector if vector.is_floating_point() else vector
        for key, vector in changed.vectors.items()
    }
    return _with_states_of(changed, vectors)


def _with_states_of(source: Joined, vectors: Mapping[str, Tensor]) -> Joined:
    """Return the arrays in ``vectors``, and the BatchNorm statistics of ``source``."""
    made = Joined(vectors, source.layout)
    for name in _statistics(source.layout):
        made[name].copy_(source[name])
    return made


@lru_cache(maxsize=64)
def _statistics(layout: Layout) -> tuple[str, ...]:
    """Return the names of the floating-point arrays that are no weights."""
    arrays = ((name, torch.empty(0, dtype=dtype)) for name, (_, dtype) in layout.shapes.items())
    return tuple(n for n, array in arrays if array.is_floating_point() and is_state(n, array))


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

    Raises TrainingError: a value is not finite.
    """
    joined = join(update)
    floats = [v for v in joined.vectors.values() if v.is_floating_point()]
    for name, array in joined.items() if not all(map(is_finite, floats)) else ():
        if array.is_floating_point() and not is_finite(array):
            raise TrainingError(f"the update of {name} holds a value that is not finite")
    left: Mapping[str, Tensor] = residual or {}
    if codec is None:
        return Encoded(joined.vectors, left)
    plan = plan_message(joined.layout, codec)
    vectors = dict(join({name: joined[name] for name in plan.whole.shapes}, plan.whole).vectors)
    if plan.runs:
        values = plan.values(joined)
        if left:
            values += _earlier(left, plan)
        written = codec.encode(values, plan.channels, generator)
        vectors |= written
        if residual is not None:
            rest = values.sub_(codec.decode(written, plan.channels))
            own = Joined({key: rest for key in plan.left.lengths}, plan.left)
            left = {**left, **own} if left.keys() - own.keys() else own
    return Encoded(deflate(vectors), left)


def _earlier(left: Mapping[str, Tensor], plan: MessagePlan) -> Tensor:
    """Return what earlier messages left out of the written arrays, [n]."""
    if Layout.of(left) != plan.left:
        # With usplit a client may write an array for the first time in a later round.
        shapes = plan.left.shapes
        left = {n: left[n] if n in left else torch.zeros(shapes[n][0]) for n in shapes}
    (values,) = join(left).vectors.values()
    return values


def decode(
    vectors: Mapping[str, Tensor], codec: Codec | None, template: Mapping[str, Tensor]
) -> Joined:
    """Return the update like ``template``; raises FederationError for what is no encoding."""
    layout = Layout.of(template)
    plan = plan_message(layout, codec)
    if codec:
        vectors = inflate(vectors, plan.lengths)
    check_vectors(vectors, plan.lengths)
    for key, vector in vectors.items():
        if vector.is_floating_point() and not is_finite(vector):
            raise FederationError(f"the message's array {key} holds a value that is not finite")
    whole = Joined({key: vectors[key] for key in plan.whole.lengths}, plan.whole)
    if codec is None or not plan.runs:
        return whole
    decoded = {key: torch.empty(n, dtype=dtype) for key, (n, dtype) in layout.lengths.items()}
    for name, array in whole.items():
        key, start, end = layout.places[name]
        decoded[key][start:end] = array.reshape(-1)
    values = codec.decode({part: vectors[part] for part in plan.parts}, plan.channels)
    if not is_finite(values):
        raise FederationError("the message decodes to a value that is not finite")
    plan.put(values, decoded)
    return Joined(decoded, layout)


@lru_cache(maxsize=64)
def plan_message(layout: Layout, codec: Codec | None) -> MessagePlan:
    """Return how arrays of ``layout`` are written; the same on both sides.

    Raises SettingsError: the codec names a vector like the dtype of one that is sent whole.
    """
    shapes = layout.shapes
    empty = {n: torch.empty(shape, dtype=d, device="meta") for n, (shape, d) in shapes.items()}
    written = [name for name in sorted(shapes) if codec_for(name, empty[name], codec)]
    channels = channels_of(tuple(shapes[name][0] for name in written))
    parts = codec.parts(channels) if codec and written else {}
    if taken := sorted(filter(is_dtype_name, parts)):
        raise SettingsError(
            f"codec {type(codec).__name__} names a vector {taken[0]}, as arrays that are sent "
            "whole are named by their dtype; give it another name"
        )
    return MessagePlan(
        channels=channels,
        runs=_runs(layout, written),
        left=Layout({name: (shapes[name][0], torch.float32) for name in written}),
        whole=Layout({name: shapes[name] for name in shapes if name not in set(written)}),
        parts=parts,
    )


def codec_for(name: str, array: Tensor, codec: Codec | None) -> Codec | None:
    """Return ``codec`` where it makes ``array`` smaller; None where that is sent as it is."""
    if codec is None or is_state(name, array) or not array.numel():
        return None
    parts = codec.parts(channels_of((array.shape,)))
    written = sum(length * dtype.itemsize for length, dtype in parts.values())
    return codec if written < array.numel() * array.element_size() else None


def _runs(layout: Layout, names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return where arrays lie in the vectors of ``layout``; neighbours are one run."""
    runs: list[tuple[str, int, int]] = []
    for name in names:
        key, start, end = layout.places[name]
        if runs and runs[-1][0] == key and runs[-1][2] == start:
            start = runs.pop()[1]
        runs.append((key, start, end))
    return tuple(runs)
