"""Weighted means of clients' weights: of whole models, of arrays, and of rows by class."""

from collections.abc import Mapping

import torch
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation.rule import Aggregation, ReplyCheck, to_dtype, widened
from phoenix_pipeline.federated.wire import Joined
from phoenix_pipeline.optimization.class_rows import is_by_class


class WeightedMean:
    """``sum(weight x) / sum(weight)`` per array (FedAvg, arXiv 1602.05629), added one by one."""

    def __init__(self, template: Mapping[str, Tensor]) -> None:
        self._check = ReplyCheck(template)
        self._sums = {
            key: torch.zeros(length, dtype=torch.promote_types(dtype, torch.float32))
            for key, (length, dtype) in self._check.layout.lengths.items()
        }
        self._total_weight = 0.0

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``; nothing is added if they are refused."""
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


class PartialMean:
    """A :class:`WeightedMean` per array; one that nobody sent stays as it is in ``base``."""

    def __init__(self, base: Mapping[str, Tensor]) -> None:
        self._base = base
        self._means: dict[str, WeightedMean] = {}

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``, some or all of the model's; refuse others."""
        odd = sorted(arrays.keys() - self._base.keys())
        if odd or not arrays:
            raise FederationError(
                f"the reply's arrays are not the model's: {odd[0] if odd else 'there are none'}"
            )
        # As a whole, before any is added.
        ReplyCheck({name: self._base[name] for name in arrays})(arrays, weight)
        for name, array in arrays.items():
            mean = self._means.setdefault(name, WeightedMean({name: self._base[name]}))
            mean.add({name: array}, weight)

    def result(self) -> dict[str, Tensor]:
        """Return the mean of every array, in the dtypes of the model."""
        sent = {name: mean.result()[name] for name, mean in self._means.items()}
        return {name: sent.get(name, array) for name, array in self._base.items()}


class RowMean:
    """``rule`` for all arrays but those by class, whose rows count only where they moved.

    A client leaves the rows of classes that it does not hold as they were. In a plain mean these
    would pull the row of a rare class back to where it was. Whether a row moved is seen in the
    update itself, so nothing more is sent than without; a row that nobody moved stays. The null
    class of a diffusion model has a row as well, which every client trains.
    """

    def __init__(self, rule: Aggregation, base: Mapping[str, Tensor]) -> None:
        self._rule = rule
        self._base = {name: value for name, value in base.items() if is_by_class(name)}
        self._sums = {name: torch.zeros_like(widened(t)) for name, t in self._base.items()}
        self._weights = {
            name: torch.zeros(len(t), dtype=torch.float64) for name, t in self._base.items()
        }

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``, unless ``rule`` refuses them."""
        self._rule.add(arrays, weight)
        for name, base in self._base.items():
            if name not in arrays:
                continue
            moved = (arrays[name] != base).any(dim=1)
            self._sums[name][moved] += widened(arrays[name])[moved] * weight
            self._weights[name] += weight * moved

    def result(self) -> dict[str, Tensor]:
        """Return what ``rule`` makes of the replies, and the rows of those who moved them."""
        new = self._rule.result()
        for name, base in self._base.items():
            weights, rows = self._weights[name], widened(base).clone()
            trained = weights > 0
            means = self._sums[name][trained] / weights[trained, None].to(rows.dtype)
            rows[trained] = means
            new[name] = to_dtype(rows, base.dtype)
        return new


def by_rows(rule: Aggregation, base: Mapping[str, Tensor]) -> Aggregation:
    """Return ``rule`` with :class:`RowMean` around it where the model has rows by class."""
    return RowMean(rule, base) if any(map(is_by_class, base)) else rule
