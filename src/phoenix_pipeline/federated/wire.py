"""One flat vector per dtype: hundreds of small arrays would cost more than their bytes do.

In messages names and shapes are not sent: both sides know them from the settings, as a
:class:`Layout`. Files of what is kept between rounds have them among their metadata.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Size, Tensor

from phoenix_pipeline.checkpoints import checksum, load_tensors, save_tensors
from phoenix_pipeline.errors import CheckpointError, FederationError

Shapes = Mapping[str, tuple[Size, torch.dtype]]
# Length and dtype of vectors by their names on the wire.
Lengths = Mapping[str, tuple[int, torch.dtype]]
# Values of a vector that a core's cache holds: several operations in a row find them there, where
# those on a whole message of millions wait for memory.
BLOCK = 1 << 18
# Names, shapes and dtypes, among the metadata.
_ARRAYS = "arrays"


@dataclass(frozen=True)
class Layout:
    """Shape and dtype of arrays by name; in the vectors they lie in the order of their names."""

    shapes: Shapes

    @classmethod
    def of(cls, arrays: Mapping[str, Tensor]) -> "Layout":
        """Return the layout of ``arrays``."""
        if isinstance(arrays, Joined):
            return arrays.layout
        return _layout_of(tuple((name, t.shape, t.dtype) for name, t in arrays.items()))

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def names(self) -> dict[torch.dtype, list[str]]:
        """Names of the arrays in each vector, in order."""
        names: dict[torch.dtype, list[str]] = {}
        for name in sorted(self.shapes):
            names.setdefault(self.shapes[name][1], []).append(name)
        return names

    @cached_property
    def lengths(self) -> Lengths:
        """Length and dtype of each vector by its name on the wire."""
        return {
            _key(dtype): (sum(self.shapes[name][0].numel() for name in names), dtype)
            for dtype, names in self.names.items()
        }

    @cached_property
    def places(self) -> dict[str, tuple[str, int, int]]:
        """Where each array lies: its vector's name on the wire, start and end."""
        places = {}
        for dtype, names in self.names.items():
            end = 0
            for name in names:
                start, end = end, end + self.shapes[name][0].numel()
                places[name] = (_key(dtype), start, end)
        return places

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that name the layout."""
        described = [(name, *shape, str(dtype)) for name, (shape, dtype) in self.shapes.items()]
        return hashlib.sha256(repr(sorted(described)).encode()).hexdigest()[:16]


def check_vectors(vectors: Mapping[str, Tensor], lengths: Lengths) -> None:
    """Raise FederationError if ``vectors`` are not of these ``lengths`` and dtypes."""
    if vectors.keys() != lengths.keys():
        raise FederationError(
            f"the message's arrays are {', '.join(sorted(vectors)) or 'none'}; the model and "
            f"the settings need {', '.join(sorted(lengths))}"
        )
    for key, (length, dtype) in lengths.items():
        vector = vectors[key]
        if vector.dtype != dtype or vector.shape != (length,):
            raise FederationError(
                f"the message's array {key} is {vector.dtype} {tuple(vector.shape)}; the model "
                f"and the settings need {dtype} {(length,)}"
            )


@lru_cache(maxsize=512)
def _layout_of(arrays: tuple[tuple[str, Size, torch.dtype], ...]) -> Layout:
    # What it works out serves every message of a run.
    return Layout({name: (shape, dtype) for name, shape, dtype in arrays})


class Joined(Mapping[str, Tensor]):
    """Arrays by name that are parts of ``vectors``, cut out when the first is asked for.

    A model has hundreds of small arrays: an operation on each costs more than their values do, so
    what can be is done to the vectors. They are not changed once others may see them.
    """

    def __init__(self, vectors: Mapping[str, Tensor], layout: Layout) -> None:
        """Take over the vectors; raises FederationError if they are not of ``layout``."""
        check_vectors(vectors, layout.lengths)
        self.vectors = dict(vectors)
        self.layout = layout

    @cached_property
    def _parts(self) -> dict[str, Tensor]:
        shapes, parts = self.layout.shapes, {}
        for dtype, names in self.layout.names.items():
            sizes = [shapes[name][0].numel() for name in names]
            for name, part in zip(names, self.vectors[_key(dtype)].split(sizes), strict=True):
                shape = shapes[name][0]
                parts[name] = part if len(shape) == 1 else part.view(shape)
        return parts

    def cpu(self) -> "Joined":
        """Return the same arrays on the CPU."""
        return Joined({key: vector.cpu() for key, vector in self.vectors.items()}, self.layout)

    def __getitem__(self, name: str) -> Tensor:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return (name for names in self.layout.names.values() for name in names)

    def __len__(self) -> int:
        return len(self.layout.shapes)


def join(arrays: Mapping[str, Tensor], layout: Layout | None = None) -> Joined:
    """Return ``arrays`` as one vector per dtype, copied unless they are; ``layout``: theirs."""
    if isinstance(arrays, Joined):
        return arrays
    layout = layout or Layout.of(arrays)
    vectors = {
        _key(dtype): torch.cat([arrays[name].detach().reshape(-1) for name in names])
        for dtype, names in layout.names.items()
    }
    return Joined(vectors, layout)


def select(arrays: Mapping[str, Tensor], names: Collection[str]) -> Mapping[str, Tensor]:
    """Return those of ``arrays`` that are named; as they are where all of them are."""
    if isinstance(arrays, Joined) and isinstance(names, Joined) and arrays.layout is names.layout:
        return arrays
    if arrays.keys() == set(names):
        return arrays
    return {name: arrays[name] for name in names}


def fingerprint(arrays: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits that name the arrays and their values."""
    joined = join(arrays)
    return checksum(joined.vectors, joined.layout.fingerprint)[:16]


def num_bytes(arrays: Mapping[str, Tensor]) -> int:
    """Return the size of ``arrays`` in bytes."""
    parts = arrays.vectors if isinstance(arrays, Joined) else arrays
    return sum(tensor.nbytes for tensor in parts.values())


def extremes(tensor: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value; NaN where there is one, zeros if it is empty."""
    if not tensor.numel():
        return 0.0, 0.0
    # One pass over the memory, a twentieth of the time of isfinite.
    lowest, highest = torch.aminmax(tensor)
    return float(lowest), float(highest)


def is_finite(tensor: Tensor) -> bool:
    """Return whether ``tensor`` holds neither NaN nor infinity."""
    return all(map(math.isfinite, extremes(tensor)))


def _key(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def is_dtype_name(name: str) -> bool:
    """Return whether ``name`` may be that of a vector with arrays of a dtype, such as float32."""
    return isinstance(getattr(torch, name, None), torch.dtype)


Groups = Mapping[str, Mapping[str, Tensor]]


def save_packed(path: Path, groups: Groups, metadata: Mapping[str, Any]) -> None:
    """Write arrays by group and name, with a sha256 over all; raises StorageError."""
    described, vectors = {}, dict[str, Tensor]()
    for group, arrays in groups.items():
        is_joined = isinstance(arrays, Joined)
        # On a GPU, counts of steps are on the CPU all the same.
        own = join(arrays if is_joined else {n: a.detach().cpu() for n, a in arrays.items()}).cpu()
        shapes = own.layout.shapes.items()
        described[group] = {name: (list(shape), _key(dtype)) for name, (shape, dtype) in shapes}
        vectors |= {f"{group}/{key}": vector for key, vector in own.vectors.items()}
    save_tensors(path, vectors, {**metadata, _ARRAYS: described})


def load_packed(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return arrays by group and name, and metadata; raises CheckpointError."""
    vectors, metadata = load_tensors(path)
    groups = {}
    try:
        for group, arrays in metadata.pop(_ARRAYS).items():
            shapes = {n: (Size(shape), getattr(torch, kind)) for n, (shape, kind) in arrays.items()}
            layout = Layout(shapes)
            own = {key: vectors[f"{group}/{key}"] for key in layout.lengths}
            groups[group] = dict(Joined(own, layout))
    except (AttributeError, KeyError, TypeError, ValueError, FederationError) as error:
        raise CheckpointError(f"{path} holds other arrays than it describes: {error}") from error
    return groups, metadata
