"""Rules that withstand some bad replies; each holds all replies of a round, a model per client.

Replies count alike, whatever number of examples they claim. Integer arrays, such as BatchNorm's
counts, are aggregated like the others and rounded, but say nothing about how close two replies are.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from phoenix_pipeline.config import AggregationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation.rule import ReplyCheck, to_dtype, widened
from phoenix_pipeline.registry import look_up

# Coordinates that are sorted at a time: a block of all clients' values stays in the cache.
_BLOCK = 1 << 14


class RobustRule:
    """Median, trimmed mean, Krum or Multi-Krum of the replies, as ``config.rule`` says."""

    NAMES: ClassVar[tuple[str, ...]] = ("median", "trimmed_mean", "krum", "multi_krum")

    def __init__(self, config: AggregationConfig, template: Mapping[str, Tensor]) -> None:
        self._config = config
        self._template = template
        self._check = ReplyCheck(template)
        self._replies: list[Mapping[str, Tensor]] = []

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Keep one client's ``arrays``; ``weight`` is only checked."""
        self._check(arrays, weight)
        self._replies.append(arrays)

    def result(self) -> dict[str, Tensor]:
        """Return the aggregate; raises FederationError for fewer replies than the rule needs."""
        config, count = self._config, len(self._replies)
        if count < config.required_replies:
            raise FederationError(
                f"federation.aggregation.rule {config.rule} needs {config.required_replies} usable "
                f"replies in a round and got {count}"
            )
        cut = {"median": (count - 1) // 2, "trimmed_mean": int(config.trim_fraction * count + 1e-9)}
        if config.rule in cut:
            return self._without(cut[config.rule])
        selected = config.num_selected or count - config.num_byzantine - 2
        kept = {"krum": 1, "multi_krum": selected}
        return self._mean(self._closest(look_up(kept, config.rule, "federation.aggregation.rule")))

    def _without(self, cut: int) -> dict[str, Tensor]:
        """Return the mean of each coordinate without ``cut`` values at either end."""
        return {
            name: to_dtype(
                trimmed_mean([widened(r[name]) for r in self._replies], cut), tensor.dtype
            )
            for name, tensor in self._template.items()
        }

    def _closest(self, kept: int) -> list[int]:
        distances = squared_distances(self._replies, self._template)
        scores = krum_scores(distances, self._config.num_byzantine)
        return sorted(scores.argsort(stable=True)[:kept].tolist())

    def _mean(self, positions: Sequence[int]) -> dict[str, Tensor]:
        chosen = [self._replies[position] for position in positions]
        if len(chosen) == 1:
            return {name: chosen[0][name].clone() for name in self._template}
        return {
            name: to_dtype(torch.stack([widened(r[name]) for r in chosen]).mean(0), tensor.dtype)
            for name, tensor in self._template.items()
        }


def trimmed_mean(values: Sequence[Tensor], cut: int) -> Tensor:
    """Return each coordinate's mean without its ``cut`` smallest and ``cut`` largest values.

    The mean of what is left in the middle (Yin et al., arXiv 1803.01498, definition 2); with
    ``cut = (len(values) - 1) // 2`` it is the median, of an even number that of the middle two.
    """
    flat = [value.reshape(-1) for value in values]
    result = torch.empty_like(flat[0])
    for start in range(0, len(result), _BLOCK):
        block = torch.stack([value[start : start + _BLOCK] for value in flat], dim=1)
        middle = block.sort(dim=1).values[:, cut : len(values) - cut]
        result[start : start + _BLOCK] = middle.mean(dim=1)
    return result.view(values[0].shape)


def squared_distances(
    replies: Sequence[Mapping[str, Tensor]], origin: Mapping[str, Tensor]
) -> Tensor:
    """Return float64 [n, n] squared L2 distances over all floating-point arrays.

    They are taken between updates, the differences to ``origin``: weights themselves are so much
    longer than their differences that little precision would be left.
    """
    products = torch.zeros(len(replies), len(replies), dtype=torch.float64)
    for name, tensor in origin.items():
        if tensor.dtype.is_floating_point:
            base = tensor.reshape(-1).to(torch.float64)
            updates = torch.stack([reply[name].reshape(-1) - base for reply in replies])
            products += updates @ updates.T
    squares = products.diagonal()
    return (squares[:, None] + squares[None, :] - 2.0 * products).clamp(min=0.0)


def krum_scores(distances: Tensor, num_byzantine: int) -> Tensor:
    """Return [n] sums of ``n - f - 2`` smallest distances (arXiv 1703.02757, section 3)."""
    others = distances.clone().fill_diagonal_(torch.inf)
    neighbours = len(distances) - num_byzantine - 2
    return others.sort(dim=1).values[:, :neighbours].sum(dim=1)
