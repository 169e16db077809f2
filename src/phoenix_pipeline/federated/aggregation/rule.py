"""What every aggregation rule can do, and what a client's reply must be before one looks at it."""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.wire import Joined, Layout, extremes, join

# Above what any network or data set has; the products still fit into float32.
_LARGEST = 1e15


class Aggregation(Protocol):
    """One round's rule: made anew for each round."""

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Take one client's weights; raises FederationError and takes nothing if they are bad."""

    def result(self) -> dict[str, Tensor]:
        """Return the new global weights, in the names, shapes and dtypes of the model."""


class ReplyCheck:
    """Knows the names, shapes and dtypes of ``template``."""

    def __init__(self, template: Mapping[str, Tensor]) -> None:
        self.layout = Layout.of(template)

    def __call__(self, arrays: Mapping[str, Tensor], weight: float) -> Joined:
        """Return a reply that can be aggregated as one vector per dtype.

        Raises FederationError: names, shapes or dtypes differ from the model's, a value is not
        finite or enormous, or the weight is not positive.
        """
        if not 0 < weight < _LARGEST:
            raise FederationError(
                f"the reply counts {weight:g} examples; more than 0 are needed, below {_LARGEST:g}"
            )
        if Layout.of(arrays) != self.layout:
            self._refuse(arrays)
        joined = join(arrays)
        if not all(map(_is_sane, joined.vectors.values())):
            for name, tensor in joined.items():
                _check_values(name, tensor)
        return joined

    def _refuse(self, arrays: Mapping[str, Tensor]) -> None:
        shapes = self.layout.shapes
        if odd := sorted(arrays.keys() ^ shapes.keys()):
            raise FederationError(
                f"the reply's arrays are not the model's: {len(odd)} differ, {odd[0]} first"
            )
        for name, tensor in arrays.items():
            shape, dtype = shapes[name]
            if tensor.shape != shape or tensor.dtype != dtype:
                raise FederationError(
                    f"array {name} is {tensor.dtype} {tuple(tensor.shape)}; "
                    f"the model has {dtype} {tuple(shape)}"
                )


def _is_sane(tensor: Tensor) -> bool:
    # Comparisons with NaN are false.
    lowest, highest = extremes(tensor)
    return -_LARGEST < lowest and highest < _LARGEST


def _check_values(name: str, tensor: Tensor) -> None:
    if _is_sane(tensor):
        return
    lowest, highest = extremes(tensor)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise FederationError(f"array {name} holds a value that is not finite")
    largest = max(-lowest, highest)
    raise FederationError(
        f"array {name} holds {largest:g}; magnitudes below {_LARGEST:g} are allowed"
    )


def to_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``value`` as ``dtype``; integers are rounded, not cut."""
    return (value if dtype.is_floating_point else value.round()).to(dtype)


def widened(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in a dtype to calculate in: float32 or wider, float64 for integers."""
    if not tensor.dtype.is_floating_point:
        return tensor.to(torch.float64)
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
