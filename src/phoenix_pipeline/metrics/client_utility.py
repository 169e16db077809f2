"""What each client gains from samples: a classifier on its own images, and on these and samples."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet
from phoenix_pipeline.metrics.feature_extractor import Advance
from phoenix_pipeline.metrics.judge_training import train_classifier
from phoenix_pipeline.metrics.label_judge import LabelJudge, labels_of
from phoenix_pipeline.metrics.metric import COVERAGE, Metric
from phoenix_pipeline.metrics.utility import sample_labels


@dataclass(frozen=True)
class ClientUtility:
    """Test accuracy, 0..1: ``alone`` and ``with_samples``, in as many steps."""

    num_images: int
    num_samples: int
    alone: float
    with_samples: float

    @property
    def gain(self) -> float:
        """What the samples add to the accuracy, -1..1."""
        return self.with_samples - self.alone


def client_utilities(
    samples: np.ndarray,
    origin: np.ndarray,
    holdings: Mapping[int, np.ndarray],
    judge: LabelJudge,
    train: ImageSet,
    test: ImageSet,
    *,
    progress: Advance | None = None,
    asked: np.ndarray | None = None,
) -> dict[int, ClientUtility]:
    """Return the utility of uint8 ``samples`` [N, C, H, W] for each client of ``holdings``.

    Both classifiers have the judge's architecture and settings. A client that has a model of its
    own gets that model's samples, any other those of the model that all share, or of all clients.

    Args:
        samples: of one arm.
        origin: the client id [N] whose model drew a sample, -1 for the one that all share.
        holdings: the rows of ``train`` that each client holds; none is empty.
        judge: gives samples their labels where ``asked`` is None.
        train: the training images, with labels.
        test: the held-out images, with labels.
        progress: called with 1 after each client.
        asked: the classes [N] that a conditional model was to draw.

    Raises SettingsError: the judge knows no more than the commonest class.
    """
    if judge.refusal:
        raise SettingsError(judge.refusal)
    generated = ImageSet(samples, sample_labels(samples, judge, asked), train.class_names)
    found = {}
    for client, rows in holdings.items():
        drawn = generated.subset(_samples_for(client, origin))
        found[client] = _compare(train.subset(rows), drawn, judge, test)
        if progress:
            progress(1)
    return found


def _samples_for(client: int, origin: np.ndarray) -> np.ndarray:
    """Return which samples [N] a client gets; all, if neither it nor all clients have a model."""
    for model in (client, GLOBAL_MODEL):
        if (origin == model).any():
            return origin == model
    return np.ones(len(origin), dtype=bool)


def _compare(own: ImageSet, drawn: ImageSet, judge: LabelJudge, test: ImageSet) -> ClientUtility:
    labels = [labels_of(own, "training"), labels_of(drawn, "generated")]
    images = np.concatenate([own.images, drawn.images])
    both = ImageSet(images, np.concatenate(labels), own.class_names)
    config = judge.config
    longer = _epochs_of_as_many_steps(config, own.num_images, both.num_images)
    alone = train_classifier(own, test, longer, judge.device)
    helped = train_classifier(both, test, config, judge.device)
    accuracies = alone.test_accuracy, helped.test_accuracy
    return ClientUtility(own.num_images, drawn.num_images, *accuracies)


def _epochs_of_as_many_steps(config: ClassifierConfig, few: int, many: int) -> ClassifierConfig:
    """Return ``config`` with the epochs that make ``few`` images last as long as ``many``."""
    steps = config.epochs * math.ceil(many / config.batch_size)
    return config.model_copy(
        update={"epochs": math.ceil(steps / math.ceil(few / config.batch_size))}
    )


def summarise(found: Mapping[int, ClientUtility]) -> dict[str, float]:
    """Return the scores of an arm: means over its clients, and the least gain of any."""
    alone = [one.alone for one in found.values()]
    helped = [one.with_samples for one in found.values()]
    least = min(one.gain for one in found.values())
    values = (float(np.mean(alone)), float(np.mean(helped)), least)
    return {metric.name: value for metric, value in zip(SCORES, values, strict=True)}


_MEAN = "mean over the clients of the accuracy on all real test images of a classifier trained on"
SCORES = (
    Metric(
        "client_utility_alone",
        "Client alone",
        f"{_MEAN} the client's own images: what `client_utility` is held against",
        group=COVERAGE,
    ),
    Metric(
        "client_utility",
        "Client helped",
        f"{_MEAN} the client's own images and the samples, in as many steps",
        "higher",
        COVERAGE,
    ),
    Metric(
        "client_utility_least_gain",
        "Least gain",
        "what the samples add to that accuracy at the client that gains least",
        "higher",
        COVERAGE,
    ),
)
