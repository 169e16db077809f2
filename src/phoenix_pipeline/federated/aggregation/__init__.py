"""How the replies of one round become new global weights: a rule, chosen by the settings.

Every rule takes replies one by one (``add``) and gives the weights of the model (``result``).
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.federated.aggregation.weighted_mean import WeightedMean

__all__ = ["Aggregation", "WeightedMean", "build_aggregation"]


class Aggregation(Protocol):
    """One round's rule: made anew for each round."""

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Take one client's weights; raises FederationError and takes nothing if they are bad."""

    def result(self) -> dict[str, Tensor]:
        """Return the new global weights, in the names, shapes and dtypes of the model."""


def build_aggregation(
    config: FederationConfig, template: Mapping[str, Tensor], seed: int, server_round: int
) -> Aggregation:
    """Return the rule of round ``server_round``.

    Args:
        config: names the rule.
        template: the global weights that the round started from.
        seed: the run's, for rules that draw.
        server_round: from 1, counted over resumed runs.
    """
    return WeightedMean(template)
