"""Samples as training data: real ones are worth as much as real ones, noise nothing."""

import numpy as np
import pytest

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.utility import classification_utility

Digits = tuple[ImageSet, ImageSet]


def test_real_images_are_worth_as_much_as_real_images(digits: Digits, judge: LabelJudge) -> None:
    train, test = digits
    epochs: list[int] = []
    found = classification_utility(train.images, judge, train, test, seed=0, progress=epochs.append)
    assert found.num_images == train.num_images
    assert found.real > 0.95
    assert found.samples == pytest.approx(found.real, abs=0.02)
    assert sum(epochs) == 2 * judge.config.epochs


def test_one_class_teaches_that_class_only(digits: Digits, judge: LabelJudge) -> None:
    train, test = digits
    assert train.labels is not None and test.labels is not None
    zeros = train.images[train.labels == 0]
    found = classification_utility(zeros, judge, train, test, seed=0)
    assert found.num_images == len(zeros)
    assert found.samples == pytest.approx((test.labels == 0).mean(), abs=0.05)
    assert found.real > found.samples + 0.3


def test_noise_teaches_little(digits: Digits, judge: LabelJudge) -> None:
    train, test = digits
    noise = np.random.default_rng(0).integers(0, 256, (600, 1, 8, 8), dtype=np.uint8)
    found = classification_utility(noise, judge, train, test, seed=0)
    assert found.samples < 0.4
    assert found.real > 0.8


def test_more_samples_than_training_images_are_cut_and_too_few_refused(
    digits: Digits, judge: LabelJudge
) -> None:
    train, test = digits
    few = train.subset(slice(0, 200))
    twice = np.concatenate([few.images, few.images])
    assert classification_utility(twice, judge, few, test, seed=0).num_images == 200
    with pytest.raises(SettingsError, match="9 images for 10 classes"):
        classification_utility(twice[:9], judge, train, test, seed=0)


def test_samples_of_a_conditional_model_bring_their_labels(
    digits: Digits, judge: LabelJudge
) -> None:
    train, test = digits
    assert train.labels is not None
    wrong = (train.labels + 1) % 10
    found = classification_utility(train.images, judge, train, test, seed=0, asked=wrong)
    assert found.samples < 0.05
