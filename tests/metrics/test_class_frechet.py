"""The Frechet distance within classes: values computed by hand, and what cannot be had."""

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.class_frechet import class_frechet_distance
from phoenix_pipeline.metrics.extractors import pixel_extractor
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.reference import build_reference, reference_labels
from phoenix_pipeline.metrics.scores import Yardstick, score_real_images, score_samples

CONFIG = EvaluationConfig(kid_subset_size=50, kid_subsets=2)
LABELS = np.array([4, 9, 4, 9])


def test_it_is_the_mean_over_classes_of_distances_computed_by_hand() -> None:
    # Class 4: means 1 and 5, variances 2 and 8: 16 + 2 + 8 - 2 sqrt(2 x 8) = 18.
    # Class 9: means 0 and 3, variances 18 and 2: 9 + 18 + 2 - 2 sqrt(18 x 2) = 17.
    samples, real = (np.array(x)[:, None] for x in ([0.0, -3, 2, 3], [3.0, 2, 7, 4]))
    assert class_frechet_distance(samples, LABELS, real, LABELS) == pytest.approx(17.5)


def test_every_class_counts_alike() -> None:
    samples, real = (np.array(x)[:, None] for x in ([0.0, -3, 2, 3], [3.0, 2, 7, 4]))
    again, labels = np.concatenate([samples, samples[::2]]), np.concatenate([LABELS, LABELS[::2]])
    # The variance of class 4, twice the same two values, is 4 / 3.
    first = 16 + 4 / 3 + 8 - 2 * np.sqrt(4 / 3 * 8)
    found = class_frechet_distance(again, labels, real, LABELS)
    assert found == pytest.approx((first + 17) / 2)


def test_fewer_images_than_features_have_the_same_closed_form() -> None:
    # Along the axes 0 and 1 of three, with the variances 2 and 8, and means that are 5 apart.
    samples = np.array([[1.0, 0, 0], [-1, 0, 0]])
    real = np.array([[0.0, 2, 5], [0, -2, 5]])
    one = np.array([0, 0])
    assert class_frechet_distance(samples, one, real, one) == pytest.approx(25 + 2 + 8)
    a, b = (
        np.random.default_rng(seed).normal(size=(count, 40)) for seed, count in ((1, 8), (2, 30))
    )
    direct = frechet_distance(gaussian_statistics(a), gaussian_statistics(b))
    zeros = (np.zeros(len(x), dtype=np.int64) for x in (a, b))
    assert class_frechet_distance(a, next(zeros), b, next(zeros)) == pytest.approx(direct, rel=1e-6)


def test_a_feature_that_is_not_finite_is_an_error_however_few_images_there_are() -> None:
    features, labels = np.ones((2, 8)), np.zeros(2, int)
    features[1, 3] = np.nan
    with pytest.raises(DataError, match="non-finite features"):
        class_frechet_distance(features, labels, np.ones((2, 8)), labels)
    with pytest.raises(DataError, match="non-finite features"):
        class_frechet_distance(np.ones((2, 8)), labels, features, labels)


def test_a_class_of_one_image_is_an_error() -> None:
    features, labels = np.arange(4.0)[:, None], np.array([4, 9, 4, 4])
    for own, real in ((labels, LABELS), (LABELS, labels)):
        with pytest.raises(SettingsError, match=r"number 9 has \d samples and \d real"):
            class_frechet_distance(features, own, features, real)


def test_samples_have_the_class_asked_for_or_the_guess_of_the_judge(
    digits: tuple[ImageSet, ImageSet], judge: LabelJudge
) -> None:
    train, test = digits
    pixels = pixel_extractor(1, 8, torch.device("cpu"))
    references = {pixels.name: build_reference(pixels, train, test, CONFIG)}
    known = reference_labels(train, test, CONFIG)
    held = Yardstick(judge, [pixels], references, CONFIG, reference_labels=known)
    vectors = (x.images.reshape(len(x.images), -1) / 255 for x in digits)
    reference, own = vectors
    guessed = judge.probabilities(test.images).argmax(axis=1)
    shifted = (test.labels + 1) % 10
    for asked, labels in ((None, guessed), (shifted, shifted)):
        expected = class_frechet_distance(own, labels, reference, train.labels)
        found = score_samples(test.images, held, seed=0, asked=asked).scores["class_fid_pixels"]
        assert found == pytest.approx(expected, rel=1e-4)
    floor = score_real_images(test.images, held, seed=3, labels=test.labels).scores
    expected = class_frechet_distance(own, test.labels, reference, train.labels)
    assert floor["class_fid_pixels"] == pytest.approx(expected, rel=1e-4)


def test_images_without_labels_have_none(digits: tuple[ImageSet, ImageSet]) -> None:
    bare = tuple(ImageSet(images.images) for images in digits)
    pixels = pixel_extractor(1, 8, torch.device("cpu"))
    references = {pixels.name: build_reference(pixels, *bare, CONFIG)}
    assert reference_labels(*bare, CONFIG) is None
    held = Yardstick(None, [pixels], references, CONFIG)
    scores = score_samples(bare[1].images, held, seed=0)
    assert "class_fid_pixels" not in scores.scores
    assert scores.skipped["class_fid_pixels"] == "the samples have no labels"
