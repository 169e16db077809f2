"""The weighted mean of clients' weights, as a running sum that holds one model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from phoenix_pipeline.federated.aggregation.replies import ReplyCheck, to_dtype
from phoenix_pipeline.federated.wire import Joined


class WeightedMean:
    """``sum(weight x) / sum(weight)`` per array (FedAvg, arXiv 1602.05629), added one by one."""

    def __init__(self, template: Mapping[str, Tensor]) -> None:
        self._check = ReplyCheck(template)
        self._sums = {
            key: torch.zeros(length, dtype=_summed_in(dtype))
            for key, (length, dtype) in self._check.layout.lengths.items()
        }
        self._total_weight = 0.0

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``; nothing is added if they are refused.

        Raises:
            FederationError: see :class:`ReplyCheck`.
        """
        vectors = self._check(arrays, weight).vectors
        for key, total in self._sums.items():
            total.add_(vectors[key].to(total.dtype), alpha=weight)
        self._total_weight += weight

    def result(self) -> dict[str, Tensor]:
        """Return the mean, in the dtypes of the model; integers are rounded."""
        layout = self._check.layout
        means = {
            key: to_dtype(self._sums[key] / self._total_weight, dtype)
            for key, (_, dtype) in layout.lengths.items()
        }
        return dict(Joined(means, layout))


def _summed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
