"""Every metric of one set of samples, under flat names; what cannot be had is skipped and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.class_histogram import ClassHistogram, class_histogram
from phoenix_pipeline.metrics.classifier import LabelJudge
from phoenix_pipeline.metrics.extractors import NO_JUDGE
from phoenix_pipeline.metrics.feature_extractor import (
    FeatureExtractor,
    Progress,
    extract_features,
)
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.inception_score import inception_score
from phoenix_pipeline.metrics.kid import kernel_distance
from phoenix_pipeline.metrics.manifold import manifold_scores
from phoenix_pipeline.metrics.memorization import memorized_share
from phoenix_pipeline.metrics.reference import ReferenceStatistics
from phoenix_pipeline.seeding import numpy_generator

JUDGE_METRICS = (
    "inception_score",
    "class_entropy",
    "class_kl",
    "classes_covered",
    "confident_share",
)
JUDGE_QUALITY = ("classifier_test_accuracy", "classifier_majority_share")


@dataclass(frozen=True)
class Scores:
    """Scores of ``num_images`` images against ``num_reference`` real ones.

    ``scores`` has finite numbers only. ``skipped`` maps a metric or an extractor to the reason why
    it is not among them.
    """

    num_images: int
    num_reference: int
    scores: dict[str, float]
    skipped: dict[str, str]
    histogram: ClassHistogram | None

    def __str__(self) -> str:
        """Return a line for each score, and one for each that was skipped, with the reason."""
        head = f"{self.num_images} samples against {self.num_reference} real images"
        scores = [f"{name:32} {value:.4g}" for name, value in self.scores.items()]
        skipped = [f"{name:32} skipped: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([head, *scores, *skipped])


def score_samples(
    samples: np.ndarray,
    references: Mapping[str, ReferenceStatistics],
    judge: LabelJudge | None,
    extractors: Sequence[FeatureExtractor],
    config: EvaluationConfig,
    *,
    seed: int,
    skipped: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score uint8 ``samples`` [N, C, H, W] in the feature space of each extractor.

    ``references`` maps extractor names to real images; ``skipped`` are extractors that could not be
    had. ``memorized_share`` is the largest of ``memorized_share_<x>`` over the feature spaces.

    Raises:
        SettingsError: there is no sample, or an extractor has no reference.
        DataError: the samples do not fit the extractors, or a feature is not finite.
    """
    missing = [extractor.name for extractor in extractors if extractor.name not in references]
    if missing:
        raise SettingsError(
            f"There are no reference statistics for {', '.join(missing)}; there are some for "
            f"{', '.join(references) or 'none'}; make them first"
        )
    tally = _Tally(skipped)
    for extractor in extractors:
        features = extract_features(extractor, samples, config.batch_size, progress)
        reference = references[extractor.name]
        _compare(tally, extractor.name, features, reference, config, seed=seed)
        _search_copies(tally, extractor.name, features, reference)
    _summarise_copies(tally)
    histogram = _judge(tally, judge, samples, seed)
    return tally.result(len(samples), references, histogram)


def score_real_images(
    images: np.ndarray,
    references: Mapping[str, ReferenceStatistics],
    judge: LabelJudge | None,
    config: EvaluationConfig,
    *,
    seed: int,
    num_images: int | None = None,
    skipped: Mapping[str, str] | None = None,
) -> Scores:
    """Score real images of the split that is not the reference: the floor of every metric.

    ``images`` is that split, uint8 [N, C, H, W]. ``num_images`` is how many samples the floor is
    compared with: distances fall with the number of images, so as many are used, or all that there
    are (``Scores.num_images`` says how many).
    """
    available = [len(images), *(len(r.held_out_features) for r in references.values())]
    count = min(available if num_images is None else [*available, num_images])
    tally = _Tally(skipped)
    for name, reference in references.items():
        _compare(tally, name, reference.held_out_features[:count], reference, config, seed=seed)
    tally.skipped["memorized_share"] = "held-out real images are what samples are held against"
    order = numpy_generator(seed, "real_images").permutation(len(images))[:count]
    histogram = _judge(tally, judge, images[order], seed)
    return tally.result(count, references, histogram)


class _Tally:
    """Scores so far, and what was skipped."""

    def __init__(self, skipped: Mapping[str, str] | None) -> None:
        self.scores: dict[str, float] = {}
        self.skipped: dict[str, str] = dict(skipped or {})

    def measure(self, names: Sequence[str], metric: Callable[[], Sequence[float]]) -> None:
        """Add ``metric()`` under ``names``, or the reason why these images do not allow it."""
        try:
            values = metric()
        except SettingsError as error:
            self.skipped.update(dict.fromkeys(names, str(error)))
        else:
            self.scores.update(zip(names, map(float, values), strict=True))

    def result(
        self,
        num_images: int,
        references: Mapping[str, ReferenceStatistics],
        histogram: ClassHistogram | None,
    ) -> Scores:
        num_reference = max((r.statistics.num_images for r in references.values()), default=0)
        return Scores(num_images, num_reference, self.scores, self.skipped, histogram)


def _compare(
    tally: _Tally,
    name: str,
    features: np.ndarray,
    reference: ReferenceStatistics,
    config: EvaluationConfig,
    *,
    seed: int,
) -> None:
    space = name.removeprefix("fid_")
    real = reference.compared_features
    tally.measure(
        [name], lambda: [frechet_distance(gaussian_statistics(features), reference.statistics)]
    )
    tally.measure(
        [f"kid_{space}"],
        lambda: [
            kernel_distance(features, real, config.kid_subsets, config.kid_subset_size, seed).mean
        ],
    )
    tally.measure(
        [f"{metric}_{space}" for metric in ("precision", "recall", "density", "coverage")],
        lambda: astuple(manifold_scores(features, real, config.nearest_k)),
    )


def _search_copies(
    tally: _Tally, name: str, features: np.ndarray, reference: ReferenceStatistics
) -> None:
    metric = f"memorized_share_{name.removeprefix('fid_')}"
    baseline = reference.memorization
    if baseline is None:
        tally.skipped[metric] = reference.memorization_skipped
    else:
        tally.measure([metric], lambda: [memorized_share(features, baseline)])


def _summarise_copies(tally: _Tally) -> None:
    shares = [v for name, v in tally.scores.items() if name.startswith("memorized_share_")]
    if shares:
        tally.scores["memorized_share"] = max(shares)
    else:
        tally.skipped["memorized_share"] = "no feature space allows it"


def _judge(
    tally: _Tally, judge: LabelJudge | None, images: np.ndarray, seed: int
) -> ClassHistogram | None:
    if judge is None:
        tally.skipped.update(dict.fromkeys((*JUDGE_METRICS, *JUDGE_QUALITY), NO_JUDGE))
        return None
    quality = (judge.test_accuracy, judge.majority_share)
    tally.scores.update(zip(JUDGE_QUALITY, quality, strict=True))
    if judge.refusal:
        tally.skipped.update(dict.fromkeys(JUDGE_METRICS, judge.refusal))
        return None
    probabilities = judge.probabilities(images)
    histogram = class_histogram(probabilities, judge.class_names, judge.class_counts)
    tally.measure(["inception_score"], lambda: inception_score(probabilities, seed)[:1])
    tally.scores.update(
        class_entropy=histogram.normalised_entropy,
        class_kl=histogram.kl_to_training,
        classes_covered=float(histogram.classes_covered),
        confident_share=histogram.confident_share,
    )
    return histogram
