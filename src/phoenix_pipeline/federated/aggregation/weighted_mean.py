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
        self._sums = {
            name: torch.zeros(t.shape, dtype=_summed_in(t.dtype)) for name, t in template.items()
        }
        self._total_weight = 0.0

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``; nothing is added if they are refused.

        Raises:
            FederationError: see :class:`ReplyCheck`.
        """
        self._check(arrays, weight)
        values = [arrays[name].to(total.dtype) for name, total in self._sums.items()]
        # In place and in one call: a model has hundreds of small arrays.
        torch._foreach_add_(list(self._sums.values()), values, alpha=weight)
        self._total_weight += weight

    def result(self) -> dict[str, Tensor]:
        """Return the mean, in the dtypes of the model; integers are rounded."""
        return {
            name: to_dtype(total / self._total_weight, self._dtypes[name])
            for name, total in self._sums.items()
        }


def _summed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
