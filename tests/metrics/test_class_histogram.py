"""Hand-computed counts, entropy and divergence."""

import numpy as np
import pytest

from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.metrics.class_histogram import class_histogram

NAMES = ("a", "b", "c", "d")


def test_hand_computed_histogram():
    probabilities = np.array([[0.1, 0.95, 0, 0], [0, 1, 0, 0], [0.6, 0.4, 0, 0], [0, 0, 0, 1.0]])
    histogram = class_histogram(probabilities, NAMES, (10, 20, 10, 40))
    assert histogram.counts == (1, 2, 0, 1)
    assert histogram.shares == (0.25, 0.5, 0.0, 0.25)
    assert histogram.order == (1, 0, 3, 2)
    assert histogram.normalised_entropy == pytest.approx(1.5 * np.log(2) / np.log(4))
    expected = 0.25 * np.log(0.25 / 0.125) + 0.5 * np.log(0.5 / 0.25) + 0.25 * np.log(0.25 / 0.5)
    assert histogram.kl_to_training == pytest.approx(expected)
    assert histogram.classes_covered == 3
    assert histogram.confident_share == 0.75


def test_extremes_of_entropy_and_coverage():
    even = class_histogram(np.tile(np.eye(4), (25, 1)), NAMES, (1, 1, 1, 1))
    assert (even.normalised_entropy, even.kl_to_training) == (1.0, 0.0)
    one = class_histogram(np.tile([[0, 0, 1.0, 0]], (300, 1)), NAMES, (1, 1, 1, 1))
    assert one.normalised_entropy == 0.0
    assert str(one.normalised_entropy) == "0.0"
    assert one.kl_to_training == pytest.approx(np.log(4))
    assert one.classes_covered == 1


def test_a_class_counts_as_covered_from_one_percent():
    winners = np.array([0] * 198 + [1] * 2)
    assert class_histogram(np.eye(4)[winners], NAMES, (1, 1, 1, 1)).classes_covered == 2
    assert class_histogram(np.eye(4)[[0] * 199 + [1]], NAMES, (1, 1, 1, 1)).classes_covered == 1


def test_refuses_what_has_no_finite_value():
    good = np.eye(4)
    with pytest.raises(SettingsError, match="0 samples"):
        class_histogram(good[:0], NAMES, (1, 1, 1, 1))
    with pytest.raises(DataError, match="training image for every class"):
        class_histogram(good, NAMES, (1, 1, 0, 1))
    with pytest.raises(DataError, match="non-finite"):
        class_histogram(good * np.nan, NAMES, (1, 1, 1, 1))
    with pytest.raises(DataError, match="one per class"):
        class_histogram(good[:, :3], NAMES, (1, 1, 1, 1))
