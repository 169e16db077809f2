"""The weighted mean of clients that send different arrays: each array over those who sent it."""

from collections.abc import Mapping

from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation.replies import ReplyCheck
from phoenix_pipeline.federated.aggregation.weighted_mean import WeightedMean


class PartialMean:
    """A :class:`WeightedMean` per array; one that nobody sent stays as it is in ``base``."""

    def __init__(self, base: Mapping[str, Tensor]) -> None:
        self._base = base
        self._means: dict[str, WeightedMean] = {}

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's ``arrays``, some or all of the model's; nothing if they are refused.

        Raises:
            FederationError: one is not the model's, or see :meth:`WeightedMean.add`.
        """
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
