"""Every metric of one set of samples, under flat names; what cannot be had is skipped and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.class_histogram import ClassHistogram, class_histogram
from phoenix_pipeline.metrics.classifier import LabelJudge
from phoenix_pipeline.metrics.components import class_scores, feature_scores
from phoenix_pipeline.metrics.extractors import NO_JUDGE
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor, Progress, extract_features
from phoenix_pipeline.metrics.metric import COVERAGE, ClassInputs, FeatureInputs, Metric
from phoenix_pipeline.metrics.reference import ReferenceStatistics
from phoenix_pipeline.seeding import numpy_generator

# How good the judge is: its ``test_accuracy`` and ``majority_share``.
SCORES = (
    Metric(
        "classifier_test_accuracy",
        "Judge",
        "accuracy of the label classifier on real test images",
        group=COVERAGE,
    ),
    Metric(
        "classifier_majority_share",
        "Majority",
        "share of real test images that are of the commonest class: what the label classifier has "
        "to exceed",
        group=COVERAGE,
    ),
)


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
    asked: np.ndarray | None = None,
) -> Scores:
    """Score uint8 ``samples`` [N, C, H, W] in the feature space of each extractor.

    ``references`` maps extractor names to real images; ``skipped`` are extractors that could not be
    had. ``asked``: int64 [N], the classes that a conditional model was to draw.

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
        inputs = FeatureInputs(features, references[extractor.name], config, seed)
        _measure_features(tally, extractor.name, inputs)
    _summarise(tally)
    histogram = _judge(tally, judge, samples, seed, asked)
    return tally.result(len(samples), references, histogram)


def score_real_images(
    images: np.ndarray,
    references: Mapping[str, ReferenceStatistics],
    judge: LabelJudge | None,
    config: EvaluationConfig,
    *,
    seed: int,
    skipped: Mapping[str, str] | None = None,
) -> Scores:
    """Score real images of the split that is not the reference: the floor of every metric.

    ``images`` is that split, uint8 [N, C, H, W]. ``Scores.num_images`` says how many were used:
    distances fall with their number.
    """
    count = min([len(images), *(len(r.held_out_features) for r in references.values())])
    tally = _Tally(skipped)
    for name, reference in references.items():
        inputs = FeatureInputs(reference.held_out_features[:count], reference, config, seed)
        _measure_features(tally, name, inputs, real_images=True)
    _summarise(tally, real_images=True)
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


def _measure_features(
    tally: _Tally, name: str, inputs: FeatureInputs, *, real_images: bool = False
) -> None:
    """Add what is measured in the feature space of the extractor ``name``."""
    space = name.removeprefix("fid_")
    for scores in feature_scores():
        if not (real_images and scores.not_of_real_images):
            names = [f"{metric.name}{space}" for metric in scores.metrics]
            tally.measure(names, partial(scores.measure, inputs))


def _summarise(tally: _Tally, *, real_images: bool = False) -> None:
    """Add the largest value over the feature spaces of each metric that has one."""
    for scores in feature_scores():
        if scores.largest is None:
            continue
        beginning = scores.metrics[0].name
        values = [value for name, value in tally.scores.items() if name.startswith(beginning)]
        if real_images and scores.not_of_real_images:
            tally.skipped[scores.largest.name] = scores.not_of_real_images
        elif values:
            tally.scores[scores.largest.name] = max(values)
        else:
            tally.skipped[scores.largest.name] = "no feature space allows it"


def _judge(
    tally: _Tally,
    judge: LabelJudge | None,
    images: np.ndarray,
    seed: int,
    asked: np.ndarray | None = None,
) -> ClassHistogram | None:
    due = [scores for scores in class_scores() if asked is not None or not scores.of_labelled]
    names = [metric.name for scores in due for metric in scores.metrics]
    quality = [metric.name for metric in SCORES]
    if judge is None:
        tally.skipped.update(dict.fromkeys((*names, *quality), NO_JUDGE))
        return None
    accuracy = (judge.test_accuracy, judge.majority_share)
    tally.scores.update(zip(quality, accuracy, strict=True))
    if judge.refusal:
        tally.skipped.update(dict.fromkeys(names, judge.refusal))
        return None
    probabilities = judge.probabilities(images)
    histogram = class_histogram(probabilities, judge.class_names, judge.class_counts)
    inputs = ClassInputs(probabilities, histogram, seed, asked)
    for scores in due:
        tally.measure([m.name for m in scores.metrics], partial(scores.measure, inputs))
    return histogram
