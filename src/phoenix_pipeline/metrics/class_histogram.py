"""Which classes the samples fall into, according to the label judge."""

from dataclasses import dataclass

import numpy as np

from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.metrics.metric import (
    COVERAGE,
    FIDELITY,
    ClassInputs,
    ClassScores,
    Headline,
    Metric,
)

COVERED_SHARE = 0.01
CONFIDENT_PROBABILITY = 0.9


@dataclass(frozen=True)
class ClassHistogram:
    """Samples by most probable class.

    ``order`` lists the classes from the largest count down. ``normalised_entropy`` is 1 for equal
    shares, 0 for one class; ``kl_to_training`` is KL(samples || training) in nats;
    ``classes_covered`` counts classes of at least 1 % of the samples; ``confident_share`` is the
    share of samples whose largest probability is over 0.9.
    """

    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    order: tuple[int, ...]
    normalised_entropy: float
    kl_to_training: float
    classes_covered: int
    confident_share: float


def class_histogram(
    probabilities: np.ndarray, class_names: tuple[str, ...], training_counts: tuple[int, ...]
) -> ClassHistogram:
    """Count samples [N, classes] by class; raises SettingsError, DataError if they do not fit."""
    _check(probabilities, len(class_names), training_counts)
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(class_names))
    shares = counts / counts.sum()
    training = np.array(training_counts) / sum(training_counts)
    seen = shares > 0
    return ClassHistogram(
        class_names=class_names,
        counts=tuple(counts.tolist()),
        shares=tuple(shares.tolist()),
        order=tuple(np.argsort(-counts, kind="stable").tolist()),
        normalised_entropy=float(
            (shares[seen] * -np.log(shares[seen])).sum() / np.log(len(class_names))
        )
        + 0.0,
        kl_to_training=float((shares[seen] * np.log(shares[seen] / training[seen])).sum()),
        classes_covered=int((shares >= COVERED_SHARE).sum()),
        confident_share=float((probabilities.max(axis=1) > CONFIDENT_PROBABILITY).mean()),
    )


def _check(probabilities: np.ndarray, classes: int, training_counts: tuple[int, ...]) -> None:
    if classes < 2 or not len(probabilities):
        raise SettingsError(
            f"A class histogram got {len(probabilities)} samples and {classes} class(es); "
            "allowed is at least 1 sample and 2 classes"
        )
    if probabilities.shape[1] != classes or len(training_counts) != classes:
        raise DataError(
            f"A class histogram of {classes} classes got {probabilities.shape[1]} probabilities "
            f"and {len(training_counts)} training counts; allowed is one per class"
        )
    if min(training_counts) < 1 or not np.isfinite(probabilities).all():
        raise DataError(
            f"A class histogram got training counts {training_counts} and "
            f"{(~np.isfinite(probabilities)).sum()} non-finite probabilities; allowed is a "
            "training image for every class, and finite numbers"
        )


def _measure(inputs: ClassInputs) -> tuple[float, ...]:
    found = inputs.histogram
    evenness = found.normalised_entropy, found.kl_to_training
    return (*evenness, float(found.classes_covered), found.confident_share)


SCORES = (
    ClassScores(
        (
            Metric(
                "class_entropy",
                "Entropy",
                "evenness of the classes among the samples; 1 is uniform",
                "higher",
                COVERAGE,
                headline=Headline(60, keep=8),
            ),
            Metric(
                "class_kl",
                "KL",
                "divergence of the samples' class shares from those of the training images; 0 is "
                "equal",
                "lower",
                COVERAGE,
                headline=Headline(70, keep=5),
            ),
            Metric(
                "classes_covered",
                "Classes",
                "number of classes that hold at least 1 % of the samples",
                "higher",
                COVERAGE,
                headline=Headline(80, keep=2),
            ),
            Metric(
                "confident_share",
                "Confident",
                "share of samples that the label classifier puts into a class with certainty",
                "higher",
                FIDELITY,
            ),
        ),
        _measure,
    ),
)
