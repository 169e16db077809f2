"""Every metric of one set of samples, under flat names; what cannot be had is skipped and why."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.class_histogram import ClassHistogram, class_histogram
from phoenix_pipeline.metrics.components import class_scores, feature_scores
from phoenix_pipeline.metrics.extractors import NO_JUDGE
from phoenix_pipeline.metrics.feature_extractor import Advance, FeatureExtractor, extract_features
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.metric import COVERAGE, ClassInputs, FeatureInputs, Metric
from phoenix_pipeline.metrics.reference import ReferenceStatistics, reference_order
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


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What samples are held against: a judge where there are classes, and real images' statistics.

    ``references``: of each of the ``extractors``, by its name. ``skipped``: why others cannot be
    had. ``reference_labels``: int64, of the rows of the references' features, where there are any.
    """

    judge: LabelJudge | None
    extractors: Sequence[FeatureExtractor]
    references: Mapping[str, ReferenceStatistics]
    config: EvaluationConfig
    skipped: Mapping[str, str] = field(default_factory=dict)
    reference_labels: np.ndarray | None = None


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
        head = f"{self.num_images} samples against {self.num_reference} real images"
        scores = [f"{name:32} {value:.4g}" for name, value in self.scores.items()]
        skipped = [f"{name:32} skipped: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([head, *scores, *skipped])


def score_samples(
    samples: np.ndarray,
    held: Yardstick,
    *,
    seed: int,
    progress: Advance | None = None,
    asked: np.ndarray | None = None,
) -> Scores:
    """Score uint8 ``samples`` [N, C, H, W] in each feature space; ``asked``: their classes [N].

    Raises SettingsError, DataError: there is none, they do not fit, or a feature is not finite.
    """
    if not len(samples):
        raise SettingsError("Scores of 0 images were asked for; allowed is 1 or more")
    missing = [e.name for e in held.extractors if e.name not in held.references]
    if missing:
        raise SettingsError(
            f"There are no reference statistics for {', '.join(missing)}; there are some for "
            f"{', '.join(held.references) or 'none'}; make them first"
        )
    features = (
        (e.name, extract_features(e, samples, held.config.batch_size, progress))
        for e in held.extractors
    )
    probabilities = _probabilities(held.judge, samples)
    labels = asked
    if labels is None and probabilities is not None:
        labels = probabilities.argmax(axis=1)
    tally = _Tally({}, dict(held.skipped))
    _measure(tally, held, features, seed, labels)
    histogram = _judge(tally, held.judge, probabilities, seed, asked)
    return _scores(tally, held, len(samples), histogram)


def score_real_images(
    images: np.ndarray, held: Yardstick, *, seed: int, labels: np.ndarray | None = None
) -> Scores:
    """Score real images of the split that is not the reference: the floor of every metric.

    ``images`` is that split, uint8 [N, C, H, W], with its ``labels`` [N]. ``Scores.num_images``
    says how many were used: distances fall with their number.
    """
    known = held.references
    count = min([len(images), *(len(r.held_out_features) for r in known.values())])
    features = ((name, r.held_out_features[:count]) for name, r in known.items())
    if labels is not None:
        labels = labels[reference_order(len(images))[:count]]
    order = numpy_generator(seed, "real_images").permutation(len(images))[:count]
    tally = _Tally({}, dict(held.skipped))
    _measure(tally, held, features, seed, labels, real_images=True)
    probabilities = _probabilities(held.judge, images[order])
    histogram = _judge(tally, held.judge, probabilities, seed, None)
    return _scores(tally, held, count, histogram)


def _measure(
    tally: "_Tally",
    held: Yardstick,
    features: Iterable[tuple[str, np.ndarray]],
    seed: int,
    labels: np.ndarray | None,
    *,
    real_images: bool = False,
) -> None:
    """Add the scores of images with their ``features`` by extractor and their ``labels``."""
    due = [s for s in feature_scores() if not (real_images and s.not_of_real_images)]
    for name, found in features:
        reference, known = held.references[name], held.reference_labels
        inputs = FeatureInputs(found, reference, held.config, seed, labels, known)
        for scores in due:
            names = [f"{metric.name}{name.removeprefix('fid_')}" for metric in scores.metrics]
            tally.measure(names, partial(scores.measure, inputs))
    for scores in feature_scores():
        if scores.largest is None:
            continue
        values = [v for n, v in tally.scores.items() if n.startswith(scores.metrics[0].name)]
        if real_images and scores.not_of_real_images:
            tally.skipped[scores.largest.name] = scores.not_of_real_images
        elif values:
            tally.scores[scores.largest.name] = max(values)
        else:
            tally.skipped[scores.largest.name] = "no feature space allows it"


def _scores(
    tally: "_Tally", held: Yardstick, num_images: int, histogram: ClassHistogram | None
) -> Scores:
    num_reference = max((r.statistics.num_images for r in held.references.values()), default=0)
    return Scores(num_images, num_reference, tally.scores, tally.skipped, histogram)


@dataclass(frozen=True)
class _Tally:
    scores: dict[str, float]
    skipped: dict[str, str]

    def measure(self, names: Sequence[str], metric: Callable[[], Sequence[float]]) -> None:
        """Add ``metric()`` under ``names``, or the reason why these images do not allow it."""
        try:
            values = metric()
        except SettingsError as error:
            self.skipped.update(dict.fromkeys(names, str(error)))
        else:
            self.scores.update(zip(names, map(float, values), strict=True))


def _probabilities(judge: LabelJudge | None, images: np.ndarray) -> np.ndarray | None:
    """Return the judge's [N, classes]; None without one that knows the classes."""
    return None if judge is None or judge.refusal else judge.probabilities(images)


def _judge(
    tally: _Tally,
    judge: LabelJudge | None,
    probabilities: np.ndarray | None,
    seed: int,
    asked: np.ndarray | None,
) -> ClassHistogram | None:
    due = [scores for scores in class_scores() if asked is not None or not scores.of_labelled]
    names = [metric.name for scores in due for metric in scores.metrics]
    quality = [metric.name for metric in SCORES]
    if judge is None:
        tally.skipped.update(dict.fromkeys((*names, *quality), NO_JUDGE))
        return None
    accuracy = (judge.test_accuracy, judge.majority_share)
    tally.scores.update(zip(quality, accuracy, strict=True))
    if probabilities is None:
        tally.skipped.update(dict.fromkeys(names, judge.refusal))
        return None
    histogram = class_histogram(probabilities, judge.class_names, judge.class_counts)
    inputs = ClassInputs(probabilities, histogram, seed, asked)
    for scores in due:
        tally.measure([m.name for m in scores.metrics], partial(scores.measure, inputs))
    return histogram
