"""Thresholds and decisions, computed by hand."""

import math

import pytest
from pydantic import ValidationError

from phoenix_pipeline.config import ThresholdFilterConfig
from phoenix_pipeline.federated.threshold_filter import Decision, decide, threshold_of


def config(**changes: object) -> ThresholdFilterConfig:
    settings = {"enabled": True, "relative_threshold": 3.0, "min_spread": 0.01, "min_clients": 1}
    return ThresholdFilterConfig.model_validate({**settings, **changes})


def judge(scores: dict[int, float], strikes: dict[int, int], **changes: object) -> dict:
    connected = changes.pop("num_connected", len(scores))
    decisions = decide(scores, strikes, connected, config(**changes))
    return {decision.client_id: decision for decision in decisions}


def test_relative_rule_is_median_plus_robust_deviations() -> None:
    # median 2, absolute deviations 1, 0.5, 0, 1, 7: MAD 1
    scores = [1.0, 1.5, 2.0, 3.0, 9.0]
    assert threshold_of(scores, config()) == pytest.approx(2.0 + 3.0 * 1.4826)
    # even count: median 2.25, deviations 1.25, 0.25, 0.25, 6.75: MAD 0.75
    assert threshold_of([1.0, 2.0, 2.5, 9.0], config()) == pytest.approx(2.25 + 3 * 1.4826 * 0.75)


def test_the_stricter_rule_holds() -> None:
    scores = [1.0, 1.5, 2.0, 3.0, 9.0]
    assert threshold_of(scores, config(absolute_threshold=4.0)) == 4.0
    assert threshold_of(scores, config(absolute_threshold=8.0)) == pytest.approx(6.4478)
    assert threshold_of(scores, config(absolute_threshold=8.0, relative_threshold=None)) == 8.0


def test_equal_clients_are_not_parted_by_tiny_differences() -> None:
    scores = {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0, 4: 2.05, 5: 2.7}
    told = {"min_spread": 0.1, "patience": 1}
    assert threshold_of(list(scores.values()), config(**told)) == pytest.approx(2.0 + 3 * 0.2)
    decisions = judge(scores, {}, **told)
    assert [c for c, d in decisions.items() if not d.connected] == [5]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_strikes_outside_the_median(bad: float) -> None:
    scores = {0: 1.0, 1: 1.5, 2: 2.0, 3: 3.0, 4: 9.0, 5: bad}
    assert threshold_of(list(scores.values()), config()) == pytest.approx(2.0 + 3.0 * 1.4826)
    decisions = judge(scores, {5: 1}, patience=2)
    assert not decisions[5].connected
    assert decisions[5].reason == "score not finite in 2 checks in a row"


def test_two_scores_leave_the_relative_rule_out() -> None:
    assert threshold_of([1.0, 50.0, math.nan], config()) == math.inf
    assert threshold_of([1.0, 50.0], config(absolute_threshold=5.0)) == 5.0
    decisions = judge({0: 1.0, 1: 50.0}, {1: 1}, patience=2)
    assert decisions[1].reason == "not judged: 2 finite scores, the relative rule needs 3"
    assert (decisions[1].connected, decisions[1].strikes) == (True, 1)
    # One that min_clients once spared is not disconnected by a check that judges nobody.
    assert judge({0: 1.0, 1: 50.0}, {1: 4}, patience=2)[1].connected
    assert threshold_of([], config()) == math.inf
    assert decide({}, {}, 0, config()) == []


def test_patience_counts_checks_in_a_row_and_a_good_one_resets() -> None:
    good = {0: 1.0, 1: 1.0, 2: 1.0}
    strikes: dict[int, int] = {}
    seen = []
    for score in (5.0, 5.0, 1.0, 5.0, 5.0, 5.0):
        decision = judge({**good, 7: score}, strikes, patience=3)[7]
        strikes = {7: decision.strikes}
        seen.append((decision.strikes, decision.connected))
    assert seen == [(1, True), (2, True), (0, True), (1, True), (2, True), (3, False)]
    assert decision == Decision(
        7, 5.0, pytest.approx(1.03), 3, False, "score 5.00 above 1.03 in 3 checks in a row"
    )


def test_first_strike_is_told_and_good_clients_have_no_reason() -> None:
    decisions = judge({0: 1.0, 1: 1.0, 2: 1.0, 3: 5.0}, {}, patience=2)
    assert decisions[3].reason == "score 5.00 above 1.03 in 1 check"
    assert decisions[3].connected
    assert [decisions[c].reason for c in range(3)] == ["", "", ""]


def test_a_score_at_the_threshold_is_good() -> None:
    told = {"absolute_threshold": 4.0, "relative_threshold": None, "patience": 1}
    decisions = judge({0: 4.0, 1: math.nextafter(4.0, 5.0)}, {}, **told)
    assert [decisions[0].connected, decisions[1].connected] == [True, False]
    assert (decisions[0].strikes, decisions[0].reason) == (0, "")


def test_never_below_min_clients_and_the_worst_go_first() -> None:
    scores = {3: 6.0, 1: 9.0, 2: math.nan, 0: 7.0}
    told = {"absolute_threshold": 2.0, "relative_threshold": None, "patience": 1, "min_clients": 2}
    decisions = judge(scores, {}, **told)
    assert list(decisions) == [0, 1, 2, 3]
    assert [c for c, d in decisions.items() if not d.connected] == [1, 2]
    assert decisions[0].reason == "score 7.00 above 2.00 in 1 check; kept, because min_clients=2"
    # Clients that did not train in this round count as connected.
    assert not any(d.connected for d in judge(scores, {}, num_connected=6, **told).values())
    assert all(d.connected for d in judge(scores, {}, num_connected=2, **told).values())


def test_ties_go_by_client_id() -> None:
    told = {"absolute_threshold": 2.0, "relative_threshold": None, "patience": 1, "min_clients": 2}
    decisions = judge({5: 3.0, 4: 3.0, 6: 3.0}, {}, **told)
    assert [c for c, d in decisions.items() if not d.connected] == [4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"absolute_threshold": 1.0},  # real images would not pass
        {"relative_threshold": None},
        {"relative_threshold": 0.0},
        {"min_spread": 0.0},
        {"monitor_samples": 8},
        {"patience": 0},
    ],
)
def test_config_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        config(**wrong)
