import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.privacy.attack import judge_attack, match_classes


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("decimals", [1, 9])
def test_agrees_with_scikit_learn_with_and_without_ties(shift: float, decimals: int) -> None:
    generator = np.random.default_rng(0)
    members = np.round(generator.normal(shift, 1, 300), decimals)
    held_out = np.round(generator.normal(0, 1, 450), decimals)
    result = judge_attack(members, held_out)
    truth = np.r_[np.ones(300), np.zeros(450)]
    scores = np.r_[members, held_out]
    assert result.auc == pytest.approx(roc_auc_score(truth, scores))
    false_positives, true_positives, _ = roc_curve(truth, scores, drop_intermediate=False)
    best = true_positives[false_positives <= 0.01].max()
    assert result.tpr_at_1_percent_fpr == pytest.approx(best)


def test_known_values() -> None:
    apart = judge_attack(np.arange(10.0) + 100, np.arange(20.0))
    assert (apart.auc, apart.tpr_at_1_percent_fpr) == (1.0, 1.0)
    assert apart.auc_standard_error == pytest.approx(math.sqrt(31 / 2400))
    equal = judge_attack(np.zeros(10), np.zeros(20))
    assert (equal.auc, equal.tpr_at_1_percent_fpr) == (0.5, 0.0)
    # 200 held-out images: two may be taken for members, so the threshold is the third largest.
    some = judge_attack(np.array([196.5, 197.5, 198.5, *range(5)]), np.arange(200.0))
    assert some.tpr_at_1_percent_fpr == 2 / 8


def test_members_that_score_lower_are_no_leak() -> None:
    lower, higher = np.arange(50.0), 50 + np.arange(50.0)
    assert judge_attack(lower, higher).auc_p_value > 0.999
    assert judge_attack(higher, lower).auc_p_value < 0.001


def test_the_standard_error_is_the_spread_without_a_leak() -> None:
    generator = np.random.default_rng(1)
    draws = [judge_attack(generator.normal(size=40), generator.normal(size=60)) for _ in range(600)]
    spread = np.std([draw.auc for draw in draws])
    assert spread == pytest.approx(draws[0].auc_standard_error, rel=0.1)


@pytest.mark.parametrize("members", [np.zeros(7), np.r_[np.zeros(9), np.nan]])
def test_too_few_or_broken_scores_are_refused(members: np.ndarray) -> None:
    with pytest.raises(SettingsError, match="training images; allowed are 8 or more"):
        judge_attack(members, np.zeros(20))


def test_classes_have_the_same_shares_afterwards() -> None:
    members = np.array([0] * 60 + [3] * 30 + [7] * 5)
    held_out = np.repeat([0, 1, 2, 3], 20)
    rows, others = match_classes(members, held_out, np.random.default_rng(0))
    # Nothing of class 7 is held out; class 0 has a third of what its members would need.
    assert np.array_equal(np.bincount(members[rows]), [60, 0, 0, 30])
    assert np.array_equal(np.bincount(held_out[others]), [20, 0, 0, 10])
    assert len(set(others)) == len(others)


def test_classes_that_are_nowhere_held_out_leave_nothing() -> None:
    rows, others = match_classes(np.array([5, 5]), np.array([1, 2]), np.random.default_rng(0))
    assert len(rows) == len(others) == 0
