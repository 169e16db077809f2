"""The weighted mean of clients' weights, as a running sum that holds one model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from phoenix_pipeline.federated.aggregation.replies import ReplyCheck, to_dtype


class WeightedMean:
    """``sum(weight x) / sum(weight)`` per array (FedAvg, arXiv 1602.05629), added one by one."""

    def __init__(self, template: Mapping[str, Tensor]) -> None:
        self._check = ReplyCheck(template)
        self._dtypes = {name: tensor.dtype for name, tensor in template.items()}
        self._sums: dict[str, Tensor] = {}
        self._total_weight = 0.0

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``; nothing is added if they are refused.

        Raises:
            FederationError: see :class:`ReplyCheck`.
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
        return {
            name: to_dtype(total / self._total_weight, self._dtypes[name])
            for name, total in self._sums.items()
        }
