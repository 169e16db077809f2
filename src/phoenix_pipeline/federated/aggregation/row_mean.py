"""The mean of an array with a row per class: each row over the clients that trained it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from phoenix_pipeline.federated.aggregation.replies import to_dtype, widened
from phoenix_pipeline.federated.aggregation.rule import Aggregation
from phoenix_pipeline.optimization.class_rows import is_by_class


class RowMean:
    """``rule`` for all arrays but those by class, whose rows count only where they moved.

    A client leaves the rows of classes that it does not hold as they were. In a plain mean these
    would pull the row of a rare class back to where it was. Whether a row moved is seen in the
    update itself, so nothing more is sent than without; a row that nobody moved stays. The null
    class of a diffusion model has a row as well, which every client trains.
    """

    def __init__(self, rule: Aggregation, base: Mapping[str, Tensor]) -> None:
        """Take the ``rule`` of the other arrays, and the weights that clients started from."""
        self._rule = rule
        self._base = {name: value for name, value in base.items() if is_by_class(name)}
        self._sums = {name: torch.zeros_like(widened(t)) for name, t in self._base.items()}
        self._weights = {
            name: torch.zeros(len(t), dtype=torch.float64) for name, t in self._base.items()
        }

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``.

        Raises:
            FederationError: as ``rule`` does; then nothing is added.
        """
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
