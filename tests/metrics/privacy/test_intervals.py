import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from phoenix_pipeline.metrics.privacy.attack import judge_attack
from phoenix_pipeline.metrics.privacy.intervals import auc_interval, significant, tpr_interval

REPEATS = 100


@pytest.mark.parametrize(("num_members", "num_held_out"), [(16, 120), (144, 72), (144, 360)])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_intervals_hold_the_truth_as_often_as_they_say(
    num_members: int, num_held_out: int, shift: float
) -> None:
    generator = np.random.default_rng(3)
    # Two normal distributions: both truths have a closed form.
    auc, tpr = norm.cdf(shift / np.sqrt(2)), norm.sf(norm.ppf(0.99) - shift)
    held = np.zeros(2)
    for _ in range(REPEATS):
        members = generator.normal(shift, 1, num_members)
        held_out = generator.normal(0, 1, num_held_out)
        measured = roc_auc_score(
            np.r_[np.ones(num_members), np.zeros(num_held_out)], np.r_[members, held_out]
        )
        low, high = auc_interval(measured, num_members, num_held_out)
        held[0] += low <= auc <= high
        low, high = tpr_interval(members, held_out, generator)
        held[1] += low <= tpr <= high
    # 95 % of 100 less three standard deviations.
    assert (held / REPEATS > 0.95 - 3 * np.sqrt(0.95 * 0.05 / REPEATS)).all()


@pytest.mark.parametrize(("auc", "low", "high"), [(1.0, True, False), (0.0, False, True)])
def test_a_perfect_attack_on_few_images_is_not_certain(auc: float, low: bool, high: bool) -> None:
    interval = auc_interval(auc, 10, 20)
    assert 0.0 < interval[0] < 1.0 if low else interval[0] == 0.0
    assert 0.0 < interval[1] < 1.0 if high else interval[1] == 1.0
    assert auc_interval(auc, 100, 200)[0] >= interval[0]


def test_the_interval_mirrors_when_members_and_held_out_images_change_places() -> None:
    low, high = auc_interval(0.8, 30, 70)
    assert auc_interval(0.2, 70, 30) == pytest.approx((1 - high, 1 - low))
    assert low < 0.8 < high and 0.8 - low > high - 0.8


def test_the_ends_are_where_the_measured_auc_is_two_standard_errors_away() -> None:
    for end in auc_interval(0.8, 30, 70):
        # Newcombe's method 5 with (30 + 70) / 2 - 1 = 49 in the place of both counts less one.
        spread = 1 + 49 * (1 - end) / (2 - end) + 49 * end / (1 + end)
        error = np.sqrt(end * (1 - end) * spread / (30 * 70))
        assert abs(0.8 - end) == pytest.approx(1.959964 * error, rel=1e-5)


def test_few_held_out_images_cannot_bound_the_tpr_from_below() -> None:
    generator = np.random.default_rng(0)
    members = np.full(100, 10.0)
    for count, bounded in ((72, False), (1000, True)):
        low, high = tpr_interval(members, np.arange(count) / count, generator)
        # 72 images leave a share of the thresholds above all of them, 1000 next to none.
        assert low > 0.9 if bounded else low == 0.0
        assert high > 0.97


def test_holm_by_hand() -> None:
    # Sorted: 0.01 <= 0.05 / 4, 0.016 <= 0.05 / 3, 0.03 > 0.05 / 2: the rest is not looked at.
    assert significant({"a": 0.03, "b": 0.016, "c": 0.04, "d": 0.01}) == ["d", "b"]
    assert significant({}) == []


def test_p_values_are_as_often_small_as_they_say() -> None:
    generator = np.random.default_rng(5)
    draws = [
        judge_attack(generator.normal(size=60), generator.normal(size=120)) for _ in range(200)
    ]
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean([draw.auc_p_value < 0.05 for draw in draws]) < limit
    assert np.mean([draw.tpr_p_value < 0.05 for draw in draws]) < limit
    assert any(draw.auc_p_value < 0.05 for draw in draws)


def test_the_p_value_of_the_tpr_by_hand() -> None:
    # All 8 members above all 8 others: one order of the 16 images in C(16, 8).
    result = judge_attack(np.arange(8) + 100.0, np.arange(8.0))
    assert result.tpr_p_value == pytest.approx(1 / 12870)
    assert judge_attack(np.arange(8.0), np.arange(8) + 100.0).tpr_p_value == 1.0
