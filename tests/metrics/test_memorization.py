"""Copies are found among real digits, new digits are not."""

import numpy as np
import pytest

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.memorization import (
    memorization_baseline,
    memorized_share,
    nearest_ratios,
)


def pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / np.float32(255)


def test_hand_computed_ratio():
    training = np.arange(1, 61, dtype=np.float64)[:, None]
    ratios = nearest_ratios(np.array([[0.0], [1.0]]), training)
    assert ratios == pytest.approx([1 / 25.5, 0.0], abs=1e-9)


def test_ratio_of_an_image_stored_fifty_times_is_zero():
    assert nearest_ratios(np.ones((1, 3)), np.ones((60, 3))) == [0.0]


@pytest.mark.parametrize("noise", [0.0, 6.0, 12.0])
def test_copies_and_noisy_copies_are_found(digits: tuple[ImageSet, ImageSet], noise: float):
    train, test = digits
    baseline = memorization_baseline(pixels(train.images), pixels(test.images))
    copies = train.images[:300] + np.random.default_rng(0).normal(0, noise, (300, 1, 8, 8))
    copies = copies.clip(0, 255).round().astype(np.uint8)
    assert memorized_share(pixels(copies), baseline) > 0.95


def test_new_digits_blur_grey_and_noise_are_not_called_copies(digits: tuple[ImageSet, ImageSet]):
    train, test = digits
    baseline = memorization_baseline(pixels(train.images), pixels(test.images[:180]))
    rng = np.random.default_rng(0)
    blurred = (train.images[:200] + np.roll(train.images[:200].astype(int), 1, axis=3)) // 2
    assert memorized_share(pixels(test.images[180:]), baseline) < 0.05
    assert memorized_share(pixels(blurred.astype(np.uint8)), baseline) < 0.05
    assert memorized_share(np.full((100, 64), 0.4, np.float32), baseline) == 0.0
    assert memorized_share(rng.random((100, 64), dtype=np.float32), baseline) == 0.0


def test_a_set_that_is_one_tenth_copies_is_measured_as_such(digits: tuple[ImageSet, ImageSet]):
    train, test = digits
    baseline = memorization_baseline(pixels(train.images), pixels(test.images))
    mixed = np.concatenate([train.images[:40], test.images])
    assert memorized_share(pixels(mixed), baseline) == pytest.approx(0.11, abs=0.01)


def test_refuses_too_few_images():
    with pytest.raises(SettingsError, match="49 training images; allowed is 50"):
        nearest_ratios(np.zeros((3, 2)), np.zeros((49, 2)))
    with pytest.raises(SettingsError, match="99 held-out images; allowed is 100"):
        memorization_baseline(np.zeros((60, 2)), np.zeros((99, 2)))
