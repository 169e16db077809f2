"""The weighted mean of clients' weights, as a running sum that holds one model."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from phoenix_pipeline.errors import FederationError

# Above what any network or data set has; the products still fit into float32.
_LARGEST = 1e15


class WeightedMean:
    """``sum(weight x) / sum(weight)`` per array (FedAvg, arXiv 1602.05629), added one by one."""

    def __init__(self, template: Mapping[str, Tensor]) -> None:
        self._template = {name: (t.shape, t.dtype) for name, t in template.items()}
        self._sums: dict[str, Tensor] = {}
        self._total_weight = 0.0

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``; nothing is added if they are refused.

        Raises:
            FederationError: names, shapes or dtypes differ from the model's, a value is not
                finite, or the weight is not positive.
        """
        self._check(arrays, weight)
        for name, tensor in arrays.items():
            share = tensor.to(torch.promote_types(tensor.dtype, torch.float32)) * weight
            if name in self._sums:
                self._sums[name] += share
            else:
                self._sums[name] = share
        self._total_weight += weight

    def result(self) -> dict[str, Tensor]:
        """Return the mean, in the dtypes of the model; integers are rounded."""
        mean = {}
        for name, total in self._sums.items():
            dtype = self._template[name][1]
            value = total / self._total_weight
            mean[name] = (value if dtype.is_floating_point else value.round()).to(dtype)
        return mean

    def _check(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        if not 0 < weight < _LARGEST:
            raise FederationError(
                f"the reply counts {weight:g} examples; more than 0 are needed, below {_LARGEST:g}"
            )
        if arrays.keys() != self._template.keys():
            odd = sorted(arrays.keys() ^ self._template.keys())
            raise FederationError(
                f"the reply's arrays are not the model's: {len(odd)} differ, {odd[0]} first"
            )
        for name, tensor in arrays.items():
            shape, dtype = self._template[name]
            if tensor.shape != shape or tensor.dtype != dtype:
                raise FederationError(
                    f"array {name} is {tensor.dtype} {tuple(tensor.shape)}; "
                    f"the model has {dtype} {tuple(shape)}"
                )
            _check_values(name, tensor)


def _check_values(name: str, tensor: Tensor) -> None:
    """Raise FederationError for values that are not finite, or too large."""
    if not tensor.numel():
        return
    # One pass over the memory; comparisons with NaN are false.
    lowest, highest = map(float, torch.aminmax(tensor))
    if -_LARGEST < lowest and highest < _LARGEST:
        return
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise FederationError(f"array {name} holds a value that is not finite")
    largest = max(-lowest, highest)
    raise FederationError(
        f"array {name} holds {largest:g}; magnitudes below {_LARGEST:g} are allowed"
    )
