"""The weighted mean against means computed by hand, and what it refuses."""

import pytest
import torch

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import WeightedMean

TEMPLATE = {"w": torch.zeros(2), "count": torch.zeros((), dtype=torch.int64)}


def reply(w: list[float], count: int) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(w), "count": torch.tensor(count)}


def test_weights_by_example_counts_and_keeps_dtypes() -> None:
    mean = WeightedMean(TEMPLATE)
    mean.add(reply([1.0, 10.0], 2), 30)
    mean.add(reply([5.0, -10.0], 6), 10)
    result = mean.result()
    assert result["w"].tolist() == [2.0, 5.0]
    assert result["count"].dtype == torch.int64
    assert result["count"].item() == 3


@pytest.mark.parametrize(
    ("arrays", "weight", "said"),
    [
        (reply([1.0, 2.0], 1), 0, "0 examples"),
        (reply([1.0, 2.0], 1), -3, "-3 examples"),
        (reply([1.0, float("nan")], 1), 5, "not finite"),
        (reply([1.0, float("inf")], 1), 5, "not finite"),
        ({"w": torch.zeros(2)}, 5, "count"),
        ({**reply([1.0, 2.0], 1), "extra": torch.zeros(1)}, 5, "extra"),
        ({"w": torch.zeros(3), "count": torch.tensor(1)}, 5, "(3,)"),
        ({"w": torch.zeros(2, dtype=torch.float64), "count": torch.tensor(1)}, 5, "float64"),
    ],
)
def test_a_bad_reply_changes_nothing(
    arrays: dict[str, torch.Tensor], weight: float, said: str
) -> None:
    mean = WeightedMean(TEMPLATE)
    mean.add(reply([1.0, 2.0], 4), 7)
    with pytest.raises(FederationError) as error:
        mean.add(arrays, weight)
    assert said in str(error.value)
    assert mean.result()["w"].tolist() == [1.0, 2.0]
