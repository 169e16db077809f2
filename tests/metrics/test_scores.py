"""All metrics of one set of samples: names, order of quality, what is skipped."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.extractors import classifier_extractor, pixel_extractor
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.reference import (
    ReferenceStatistics,
    build_reference,
    reference_labels,
)
from phoenix_pipeline.metrics.scores import Yardstick, score_real_images, score_samples

CONFIG = EvaluationConfig(kid_subset_size=100, kid_subsets=10)
SPACE_METRICS = ("kid", "precision", "recall", "density", "coverage", "memorized_share")
JUDGED = {
    "inception_score",
    "class_entropy",
    "class_kl",
    "classes_covered",
    "confident_share",
    "classifier_test_accuracy",
    "classifier_majority_share",
}
References = dict[str, ReferenceStatistics]


@pytest.fixture(scope="module")
def extractors(judge: LabelJudge) -> list[FeatureExtractor]:
    return [classifier_extractor(judge), pixel_extractor(1, 8, torch.device("cpu"))]


@pytest.fixture(scope="module")
def references(digits: tuple[ImageSet, ImageSet], extractors: list[FeatureExtractor]) -> References:
    return {e.name: build_reference(e, *digits, CONFIG) for e in extractors}


@pytest.fixture(scope="module")
def held(
    digits: tuple[ImageSet, ImageSet],
    judge: LabelJudge,
    extractors: list[FeatureExtractor],
    references: References,
) -> Yardstick:
    skipped = {"fid_inception_v3": "no weights"}
    labels = reference_labels(*digits, CONFIG)
    return Yardstick(judge, extractors, references, CONFIG, skipped, labels)


def test_every_metric_has_a_finite_number(
    digits: tuple[ImageSet, ImageSet],
    held: Yardstick,
):
    train, test = digits
    ticks: list[int] = []
    scores = score_samples(test.images, held, seed=0, progress=ticks.append)
    expected = {
        f"{m}_{x}" for m in ("fid", "class_fid", *SPACE_METRICS) for x in ("classifier", "pixels")
    }
    assert set(scores.scores) == expected | JUDGED | {"memorized_share"}
    assert scores.skipped == {"fid_inception_v3": "no weights"}
    assert (scores.num_images, scores.num_reference) == (360, train.num_images)
    assert sum(ticks) == 2 * 360
    json.dumps(asdict(scores), allow_nan=False)
    direct = frechet_distance(
        *(gaussian_statistics(s.images.reshape(len(s.images), -1) / 255) for s in (test, train))
    )
    assert scores.scores["fid_pixels"] == pytest.approx(direct, rel=1e-4)
    again = score_samples(test.images, held, seed=0)
    assert again.scores == scores.scores


def test_real_digits_beat_noise_copies_are_found_and_one_class_covers_little(
    digits: tuple[ImageSet, ImageSet],
    held: Yardstick,
):
    train, test = digits
    noise = np.random.default_rng(0).integers(0, 256, test.images.shape, dtype=np.uint8)
    zeros = train.images[train.labels == 0]
    real, noisy, copied, narrow = (
        score_samples(images, held, seed=0).scores
        for images in (test.images, noise, train.images[:360], zeros)
    )
    for space in ("pixels", "classifier"):
        assert 20 * real[f"fid_{space}"] < noisy[f"fid_{space}"]
        assert real[f"kid_{space}"] < noisy[f"kid_{space}"]
        assert noisy[f"coverage_{space}"] < 0.1
        assert real[f"coverage_{space}"] > 0.5
        assert narrow[f"coverage_{space}"] < 0.2
        assert narrow[f"precision_{space}"] > 0.8
    assert real["memorized_share"] < 0.05
    assert copied["memorized_share"] == 1.0
    assert real["class_entropy"] > 0.98
    assert narrow["class_entropy"] < 0.1
    assert narrow["classes_covered"] <= 2
    assert narrow["class_kl"] > 1.5
    assert held.judge and real["classifier_test_accuracy"] == held.judge.test_accuracy


def test_floor_is_the_score_of_held_out_images(
    digits: tuple[ImageSet, ImageSet],
    held: Yardstick,
):
    _, test = digits
    whole = score_real_images(test.images, held, seed=0)
    direct = score_samples(test.images, held, seed=0)
    assert whole.num_images == 360
    assert whole.histogram is not None and direct.histogram is not None
    assert whole.histogram.counts == direct.histogram.counts
    for name in ("fid_pixels", "recall_pixels", "coverage_classifier", "class_kl"):
        assert whole.scores[name] == pytest.approx(direct.scores[name], rel=1e-6)
    assert "memorized_share" in whole.skipped
    fewer = score_real_images(test.images[:100], held, seed=0)
    assert fewer.num_images == 100
    assert fewer.scores["fid_pixels"] > whole.scores["fid_pixels"]


def test_too_few_samples_skip_what_needs_more_and_give_the_rest(
    digits: tuple[ImageSet, ImageSet],
    held: Yardstick,
):
    few = score_samples(digits[1].images[:4], held, seed=0)
    assert {"kid_pixels", "recall_pixels", "inception_score"} <= set(few.skipped)
    assert {"fid_pixels", "class_entropy", "memorized_share"} <= set(few.scores)
    assert not set(few.scores) & set(few.skipped)
    one = score_samples(digits[1].images[:1], held, seed=0)
    assert "2 or more" in one.skipped["fid_pixels"]
    assert np.isfinite(list(one.scores.values())).all()
    with pytest.raises(SettingsError, match="0 images"):
        score_samples(digits[1].images[:0], held, seed=0)


def test_unlabelled_images_skip_the_judge(
    digits: tuple[ImageSet, ImageSet],
    extractors: list[FeatureExtractor],
    references: References,
):
    pixels = {"fid_pixels": references["fid_pixels"]}
    scores = score_samples(
        digits[1].images, Yardstick(None, extractors[1:], pixels, CONFIG), seed=0
    )
    assert set(scores.skipped) == JUDGED | {"class_fid_pixels"}
    assert all("no labels" in reason for reason in scores.skipped.values())
    assert scores.histogram is None
    with pytest.raises(SettingsError, match="no reference statistics for fid_classifier"):
        score_samples(digits[1].images, Yardstick(None, extractors, pixels, CONFIG), seed=0)
