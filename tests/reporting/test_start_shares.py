"""What is left of the distance of given weights, by hand."""

import pandas as pd
import pytest

from phoenix_pipeline.reporting.columns import describe_metric, shares_left
from phoenix_pipeline.reporting.comparison import compare_arms, headline_columns
from tests.written import arm_metrics, scored_arms

TUNED = pd.DataFrame(
    {"round": [8, 0, 4], "fid_pixels": [1.0, 4.0, 2.0], "fid_classifier": [30.0, 20.0, 25.0]}
)
PLAIN = pd.DataFrame({"round": [4, 8], "fid_pixels": [2.0, 1.0]})


def test_shares_are_those_of_the_first_and_the_last_round() -> None:
    assert shares_left(TUNED) == {"pixels": 0.25, "classifier": 1.5}
    assert shares_left(PLAIN) == {}
    assert shares_left(pd.DataFrame()) == {}


def test_the_comparison_has_them_for_arms_that_started_from_given_weights() -> None:
    metrics = {arm: arm_metrics({"fid_pixels": 1.0}) for arm in ("fedavg", "tuned")}
    table = compare_arms(scored_arms(metrics, by_round={"fedavg": PLAIN, "tuned": TUNED}))
    shares = table.set_index("arm")["left_of_start_pixels"]
    assert shares["tuned"] == 0.25
    assert pd.isna(shares["fedavg"])
    assert list(table.columns).index("left_of_start_pixels") < list(table.columns).index("rounds")
    assert "left_of_start_classifier" in headline_columns(table)
    metric = describe_metric("left_of_start_pixels")
    assert (metric.label, metric.arrow) == ("Left of start", "↓")
    plain = compare_arms(scored_arms(metrics, by_round={"fedavg": PLAIN}))
    assert not [name for name in plain if name.startswith("left_of_start")]


def test_a_start_that_is_perfect_has_no_share() -> None:
    perfect = TUNED.assign(fid_pixels=0.0)
    assert shares_left(perfect) == {"classifier": pytest.approx(1.5)}
