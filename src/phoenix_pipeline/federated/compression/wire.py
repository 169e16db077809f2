"""One flat array per dtype: a message of hundreds of small arrays would be mostly their headers."""

from collections.abc import Mapping

import torch
from torch import Size, Tensor

from phoenix_pipeline.errors import FederationError

Layout = Mapping[str, tuple[Size, torch.dtype]]


def join(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``parts`` as one vector per dtype, named after it, in the order of their names."""
    by_dtype: dict[str, list[Tensor]] = {}
    for name in sorted(parts):
        by_dtype.setdefault(_key(parts[name].dtype), []).append(parts[name].reshape(-1))
    return {key: torch.cat(vectors) for key, vectors in by_dtype.items()}


def split(arrays: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return the parts that ``layout`` describes out of :func:`join`'s vectors; none is copied.

    Raises:
        FederationError: names, shapes or dtypes are not those of the layout, or a value is not
            finite.
    """
    _check(arrays, layout)
    offsets = dict.fromkeys(arrays, 0)
    parts = {}
    for name in sorted(layout):
        shape, dtype = layout[name]
        key = _key(dtype)
        start = offsets[key]
        offsets[key] = start + shape.numel()
        parts[name] = arrays[key][start : offsets[key]].reshape(shape)
    return parts


def joined_bytes(layout: Layout) -> int:
    """Return the size of :func:`join`'s vectors in bytes, headers aside."""
    return sum(shape.numel() * dtype.itemsize for shape, dtype in layout.values())


def _check(arrays: Mapping[str, Tensor], layout: Layout) -> None:
    expected: dict[str, tuple[torch.dtype, int]] = {}
    for shape, dtype in layout.values():
        _, length = expected.get(_key(dtype), (dtype, 0))
        expected[_key(dtype)] = (dtype, length + shape.numel())
    if arrays.keys() != expected.keys():
        raise FederationError(
            f"the compressed arrays are {', '.join(sorted(arrays)) or 'none'}; the model and the "
            f"compression settings need {', '.join(sorted(expected))}"
        )
    for key, (dtype, length) in expected.items():
        vector = arrays[key]
        if vector.dtype != dtype or vector.shape != (length,):
            raise FederationError(
                f"compressed array {key} is {vector.dtype} {tuple(vector.shape)}; the model and "
                f"the compression settings need {dtype} {(length,)}"
            )
        if dtype.is_floating_point and not bool(torch.isfinite(vector).all()):
            raise FederationError(f"compressed array {key} holds a value that is not finite")


def _key(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
