"""What samples are worth as training data: train on them, test on real images.

The classification accuracy score of Ravuri and Vinyals (arXiv 1905.10887), with labels from the
label judge, since the generator is unconditional.
"""

from dataclasses import dataclass

import numpy as np

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet, take_stratified
from phoenix_pipeline.metrics.feature_extractor import Advance
from phoenix_pipeline.metrics.judge_training import train_classifier
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.metric import COVERAGE, Metric
from phoenix_pipeline.seeding import numpy_generator


@dataclass(frozen=True)
class Utility:
    """Test accuracy, 0..1, by ``num_images`` samples and by as many real training images."""

    samples: float
    real: float
    num_images: int


def classification_utility(
    samples: np.ndarray,
    judge: LabelJudge,
    train: ImageSet,
    test: ImageSet,
    *,
    seed: int,
    progress: Advance | None = None,
    asked: np.ndarray | None = None,
) -> Utility:
    """Compare uint8 ``samples`` [N, C, H, W] with real images as training data.

    Both classifiers have the judge's architecture and settings. Of more samples than there are
    training images as many are taken at random. ``progress`` is called with 1 after each of 2 x
    ``judge.config.epochs`` epochs. ``asked``: the classes [N] that a conditional model was to draw,
    which are then the samples' labels; else the judge gives them.
    Raises SettingsError: there are fewer images than classes, or the judge knows no more than the
    commonest one.
    Raises DataError: the samples are not what the judge was trained on.
    """
    if judge.refusal:
        raise SettingsError(judge.refusal)
    count = min(len(samples), train.num_images)
    if count < train.num_classes:
        raise SettingsError(
            f"Utility got {count} images for {train.num_classes} classes; allowed is at least one "
            "for each: raise sampling.num_images or set evaluation.utility to false"
        )
    chosen = numpy_generator(seed, "utility").permutation(len(samples))[:count]
    labels = sample_labels(samples[chosen], judge, None if asked is None else asked[chosen])
    generated = ImageSet(samples[chosen], labels, train.class_names)
    real = take_stratified(train, count, seed)
    accuracies = (
        train_classifier(images, test, judge.config, judge.device, progress=progress).test_accuracy
        for images in (generated, real)
    )
    return Utility(next(accuracies), next(accuracies), count)


def sample_labels(samples: np.ndarray, judge: LabelJudge, asked: np.ndarray | None) -> np.ndarray:
    """Return the labels [N] of samples [N, C, H, W]: as ``asked`` for, or else the judge's."""
    return judge.probabilities(samples).argmax(axis=1) if asked is None else asked


# In the order of the fields of Utility.
SCORES = (
    Metric(
        "utility",
        "Utility",
        "accuracy on real test images of a classifier trained on the samples alone, labelled by "
        "the label classifier or, of a conditional model, as they were asked for",
        "higher",
        COVERAGE,
    ),
    Metric(
        "utility_real",
        "Utility, real",
        "accuracy on real test images of a classifier trained on as many real training images: "
        "what `utility` is held against",
        group=COVERAGE,
    ),
)
