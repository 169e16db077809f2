import numpy as np

from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.privacy.copies import find_copies


def features(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


def test_copies_are_found_and_named(digits: tuple[ImageSet, ImageSet]) -> None:
    train, test = digits
    training, held_out = features(train.images), features(test.images)
    noise = np.random.default_rng(0).normal(0, 0.01, (20, training.shape[1]))
    samples = np.concatenate([held_out[:180], training[30:50] + noise])
    found = find_copies(samples, training, held_out[180:])
    assert 0.1 <= found.share < 0.15
    assert all(i >= 180 and j == i - 150 for i, j, _ in found.nearest)
    assert max(ratio for _, _, ratio in found.nearest) < 0.1


def test_held_out_images_are_no_copies(digits: tuple[ImageSet, ImageSet]) -> None:
    train, test = digits
    training, held_out = features(train.images), features(test.images)
    found = find_copies(held_out[:180], training, held_out[180:])
    # A share of 0.01 of 180 is about 2; 8 or more have a probability below 0.001.
    assert found.share * found.num_samples < 8
    assert found.expected_share == 0.01
