"""What every aggregation rule can do."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Aggregation(Protocol):
    """One round's rule: made anew for each round."""

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Take one client's weights; raises FederationError and takes nothing if they are bad."""

    def result(self) -> dict[str, Tensor]:
        """Return the new global weights, in the names, shapes and dtypes of the model."""
