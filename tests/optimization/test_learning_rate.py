"""Closed values of the learning rate."""

import pytest

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.schedules import learning_rate_at


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 2.0), (0.25, 1.7071067811865475), (0.5, 1.0), (1.0, 0.0)]
)
def test_cosine_has_closed_values(progress: float, expected: float) -> None:
    config = TrainingConfig(lr_schedule="cosine", lr_warmup=0.0)
    assert learning_rate_at(progress, 2.0, config) == pytest.approx(expected, abs=1e-12)


def test_cosine_spans_what_the_warmup_leaves() -> None:
    config = TrainingConfig(lr_schedule="cosine", lr_warmup=0.2)
    assert learning_rate_at(0.6, 2.0, config) == pytest.approx(1.0)
    assert learning_rate_at(1.0, 2.0, config) == pytest.approx(0.0, abs=1e-12)


def test_warmup_rises_linearly_from_above_zero_to_the_peak() -> None:
    config = TrainingConfig(lr_schedule="constant", lr_warmup=0.5)
    rates = [learning_rate_at(progress, 3.0, config) for progress in (0.0, 0.1, 0.2, 0.5, 0.9)]
    assert rates[0] > 0.0
    assert rates[2] - rates[1] == pytest.approx(rates[1] - rates[0]) == pytest.approx(0.6)
    assert rates[3] == rates[4] == 3.0
