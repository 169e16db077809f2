"""The averaging profile against its closed form."""

import pytest
import torch
from pydantic import ValidationError

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.schedules import ema_decay, update_ema


def average_of(values: list[float], horizon: float) -> float:
    average = torch.tensor([1e6], dtype=torch.float64)
    for update, value in enumerate(values, start=1):
        current = torch.tensor([value], dtype=torch.float64)
        update_ema([average], [current], ema_decay(update, horizon))
    return average.item()


@pytest.mark.parametrize("horizon", [0.05, 0.1, 0.5, 0.999, 1.0])
def test_first_update_forgets_the_initial_weights(horizon: float) -> None:
    assert ema_decay(1, horizon) == 0.0
    assert average_of([7.0], horizon) == 7.0


def test_a_horizon_of_the_whole_run_is_refused() -> None:
    # 0 ** 0 = 1: the untrained weights would be kept, and sampled, for ever.
    with pytest.raises(ValidationError, match=r"ema_horizon.*\n.*less than 1"):
        TrainingConfig.model_validate({"ema_horizon": 1.0})
    assert TrainingConfig(ema_horizon=0.99).ema_horizon == 0.99


def test_no_horizon_follows_the_weights() -> None:
    assert ema_decay(50, 0.0) == 0.0


@pytest.mark.parametrize("horizon", [0.1, 0.25, 0.5])
def test_average_of_a_linear_sequence_lags_by_the_horizon(horizon: float) -> None:
    # The weights at t go with t^(1/h - 2), so the mean time is t (1/h - 1) / (1/h) = (1 - h) t.
    length = 4000
    average = average_of([float(t) for t in range(1, length + 1)], horizon)
    assert average / length == pytest.approx(1.0 - horizon, abs=1e-3)


def test_half_horizon_is_the_plain_mean() -> None:
    assert average_of([3.0, 5.0, 10.0], 0.5) == pytest.approx(6.0)


def test_counters_are_copied() -> None:
    weights, counter = torch.tensor([0.0]), torch.tensor(3)
    update_ema([weights, counter], [torch.tensor([4.0]), torch.tensor(9)], 0.75)
    assert weights.item() == 1.0
    assert counter.item() == 9
