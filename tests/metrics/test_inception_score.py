"""Extremes and torch-fidelity's score."""

import numpy as np
import pytest
import torch

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.inception_score import inception_score


def test_one_class_gives_one_and_even_certainty_gives_the_number_of_classes():
    assert inception_score(np.tile([[1.0, 0.0]], (40, 1)), 0) == (1.0, 0.0)
    even = np.tile(np.eye(4), (100, 1))
    assert inception_score(even, 0, num_splits=1)[0] == pytest.approx(4.0)


def test_equals_torch_fidelity_on_one_split():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (200, 7)))
    theirs = isc_features_to_metric(logits, splits=1)["inception_score_mean"]
    ours, spread = inception_score(logits.softmax(dim=1).numpy(), seed=0, num_splits=1)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert spread == 0.0


def test_each_split_is_held_against_its_own_classes():
    # Two images of two classes in either split, whichever they are.
    assert inception_score(np.eye(4), 0, num_splits=2) == pytest.approx((2.0, 0.0))


def test_samples_ordered_by_class_score_like_shuffled_ones():
    ordered = np.repeat(np.eye(10), 100, axis=0)
    assert inception_score(ordered, seed=0)[0] > 9.0


def test_refuses_fewer_than_two_images_per_split():
    with pytest.raises(SettingsError, match="19 samples; allowed is 20"):
        inception_score(np.full((19, 2), 0.5), seed=0)
