"""Compressed model updates: what training changed, written by a codec, with error feedback."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Size, Tensor, dtype

from phoenix_pipeline.errors import FederationError, TrainingError
from phoenix_pipeline.federated.compression.channels import Channels, channels_of
from phoenix_pipeline.federated.compression.codecs import Codec, codec_for
from phoenix_pipeline.federated.compression.deflate import deflate, inflate
from phoenix_pipeline.federated.wire import Joined, Layout, is_finite, join, select
from phoenix_pipeline.strategies.strategy import is_state

_WHOLE = "whole"


@dataclass(frozen=True)
class Encoded:
    """``arrays`` for the wire, one vector per dtype; ``residual``: what they leave out, by name."""

    arrays: dict[str, Tensor]
    residual: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Plan:
    """How arrays go into a message: ``written`` by the codec, as ``channels``, others ``whole``.

    ``runs``: where the written ones lie, in order: the vector's key, start and end. ``left`` is the
    layout of what a message leaves out, one vector in the same order; ``parts`` has the names on
    the wire of each of the codec's parts.
    """

    written: tuple[str, ...]
    channels: Channels
    whole: Mapping[str, str]
    runs: tuple[tuple[str, int, int], ...]
    parts: Mapping[str, tuple[str, ...]]
    left: Layout
    layout: Layout

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
    plan = _plan(joined.layout, codec)
    parts = {on_wire: joined[name] for name, on_wire in plan.whole.items()}
    left: Mapping[str, Tensor] = residual or {}
    if codec and plan.written:
        values = plan.values(joined)
        if left:
            values += _earlier(left, plan)
        written = codec.encode(values, plan.channels, generator)
        for part, arrays in written.items():
            parts |= zip(plan.parts[part], arrays, strict=True)
        if residual is not None:
            rest = values.sub_(codec.decode(written, plan.channels))
            own = Joined({key: rest for key in plan.left.lengths}, plan.left)
            left = {**left, **own} if left.keys() - own.keys() else own
    vectors = join(parts, plan.layout).vectors
    return Encoded(deflate(vectors) if codec else vectors, left)


def _earlier(left: Mapping[str, Tensor], plan: _Plan) -> Tensor:
    """Return what earlier messages left out of the written arrays, [n]."""
    if Layout.of(left) != plan.left:
        # With usplit a client may write an array for the first time in a later round.
        shapes = plan.left.shapes
        left = {n: left[n] if n in left else torch.zeros(shapes[n][0]) for n in plan.written}
    (values,) = join(left).vectors.values()
    return values


def decode(
    arrays: Mapping[str, Tensor], codec: Codec | None, template: Mapping[str, Tensor]
) -> Joined:
    """Return the update like ``template``; raises FederationError for what is no encoding."""
    layout = Layout.of(template)
    plan = _plan(layout, codec)
    parts = Joined(inflate(arrays, plan.layout.lengths) if codec else arrays, plan.layout)
    for key, vector in parts.vectors.items():
        if vector.is_floating_point() and not is_finite(vector):
            raise FederationError(f"the message's array {key} holds a value that is not finite")
    vectors = {key: torch.empty(n, dtype=dtype) for key, (n, dtype) in layout.lengths.items()}
    for name, on_wire in plan.whole.items():
        key, start, end = layout.places[name]
        vectors[key][start:end] = parts[on_wire].reshape(-1)
    if codec and plan.written:
        own = {part: [parts[name] for name in names] for part, names in plan.parts.items()}
        values = codec.decode(own, plan.channels)
        if not is_finite(values):
            raise FederationError("the message decodes to a value that is not finite")
        plan.put(values, vectors)
    return Joined(vectors, layout)


def encoded_bytes(template: Mapping[str, Tensor], codec: Codec | None) -> int:
    """Return how many bytes :func:`encode` writes for ``template``, before any deflating."""
    return _plan(Layout.of(template), codec).layout.nbytes


@lru_cache(maxsize=64)
def _plan(layout: Layout, codec: Codec | None) -> _Plan:
    shapes, parts = layout.shapes, dict[str, list[str]]()
    described: dict[str, tuple[Size, dtype]] = {}
    written: list[str] = []
    for name in sorted(shapes):
        shape, kind = shapes[name]
        writer = codec_for(name, torch.empty(shape, dtype=kind, device="meta"), codec)
        if writer is None:
            described[f"{name}/{_WHOLE}"] = shapes[name]
            continue
        written.append(name)
        for part, each in writer.parts(shape).items():
            parts.setdefault(part, []).append(f"{name}/{part}")
            described[f"{name}/{part}"] = each
    return _Plan(
        written=tuple(written),
        channels=channels_of(tuple(shapes[name][0] for name in written)),
        whole={name: f"{name}/{_WHOLE}" for name in sorted(shapes.keys() - set(written))},
        runs=_runs(layout, written),
        parts={part: tuple(names) for part, names in parts.items()},
        left=Layout({name: (shapes[name][0], torch.float32) for name in written}),
        layout=Layout(described),
    )


def _runs(layout: Layout, names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return where arrays lie in the vectors of ``layout``; neighbours are one run."""
    runs: list[tuple[str, int, int]] = []
    for name in names:
        key, start, end = layout.places[name]
        if runs and runs[-1][0] == key and runs[-1][2] == start:
            start = runs.pop()[1]
        runs.append((key, start, end))
    return tuple(runs)
