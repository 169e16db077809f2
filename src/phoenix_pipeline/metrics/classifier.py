"""The label judge: a classifier of real images that says which class a sample is.

Trained here on the real training images; ``own_judge.py`` has one from the user's own file.
"""

import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import CheckpointError, DataError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.feature_extractor import Progress
from phoenix_pipeline.metrics.judge_networks import JudgeNetwork, build_judge_network
from phoenix_pipeline.metrics.judge_training import fit
from phoenix_pipeline.metrics.network_file import FileNetwork

logger = logging.getLogger(__name__)

FORMAT = "label_judge/2"
_INFERENCE_BATCH = 256


@dataclass(frozen=True)
class LabelJudge:
    """A classifier in evaluation mode, trained here or from the user's file.

    ``class_counts`` are those of the training split; ``test_accuracy`` is the share of
    ``num_test_images`` held-out images that it puts in their class, ``majority_share`` the share of
    them that are of the commonest class.
    """

    network: JudgeNetwork | FileNetwork
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    channels: int
    image_size: int
    test_accuracy: float
    majority_share: float
    num_test_images: int
    fingerprint: str
    config: ClassifierConfig
    device: torch.device

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return float32 class probabilities [N, classes] of uint8 ``images`` [N, C, H, W]."""
        self._check(images)
        return _in_batches(lambda b: self._logits(b).softmax(dim=1), images, self.device)

    def _logits(self, images: Tensor) -> Tensor:
        return judge_logits(self.network, images, self.config)

    @property
    def refusal(self) -> str:
        """Why nothing can be judged by it; empty where it knows more than the commonest class.

        It knows more if its accuracy is above that class's share by two standard errors of it.
        """
        share = self.majority_share
        chance = 2 * math.sqrt(share * (1 - share) / max(self.num_test_images, 1))
        if self.test_accuracy > share + chance:
            return ""
        return (
            f"the label judge is right on {self.test_accuracy:.1%} of {self.num_test_images} test "
            f"images, by chance no more than the {share:.1%} that are of the commonest class; "
            f"train it on more images or raise evaluation.classifier.epochs"
        )

    @property
    def origin(self) -> str:
        """Where it comes from: ``trained here``, or the name of its file."""
        return Path(self.config.file.path).name if self.config.file.path else "trained here"

    def _check(self, images: np.ndarray) -> None:
        expected = (self.channels, self.image_size, self.image_size)
        if images.dtype != np.uint8 or images.shape[1:] != expected or not len(images):
            raise DataError(
                f"The label judge got {images.dtype} images of shape {images.shape}; allowed is "
                f"uint8 [N >= 1, {', '.join(map(str, expected))}], as in its training split"
            )


def judge_logits(
    network: Callable[[Tensor], Tensor], images: Tensor, config: ClassifierConfig
) -> Tensor:
    """Return logits [N, classes]; with ``horizontal_flip`` the mean over image and mirror image.

    A judge from a file is asked once: whether mirroring keeps its classes is not known.
    """
    if config.horizontal_flip and config.file.path is None:
        return (network(images) + network(images.flip(3))) / 2
    return network(images)


def _in_batches(
    function: Callable[[Tensor], Tensor], images: np.ndarray, device: torch.device
) -> np.ndarray:
    with torch.inference_mode():
        rows = []
        for start in range(0, len(images), _INFERENCE_BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _INFERENCE_BATCH]))
            rows.append(function(batch.to(device)).float().cpu())
        return torch.cat(rows).numpy()


def classifier_fingerprint(train: ImageSet, test: ImageSet, config: ClassifierConfig) -> str:
    """Return the sha256 of everything that a label judge depends on."""
    trained = config.model_dump_json(exclude={"file"})
    parts = [FORMAT, train.fingerprint(), test.fingerprint(), trained]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def train_classifier(
    train: ImageSet,
    test: ImageSet,
    config: ClassifierConfig,
    device: torch.device,
    *,
    progress: Progress | None = None,
) -> LabelJudge:
    """Train the label judge on ``train`` and measure it on ``test``.

    Everything random comes from ``config.seed``: all runs with these images share one judge.
    ``progress`` is called with 1 after each of ``config.epochs`` epochs.

    Raises:
        SettingsError: a split has no labels or no images, or there are fewer than two classes.
        DataError: the splits have different classes.
        TrainingError: the loss is not finite.
    """
    labels, test_labels = labels_of(train, "training"), labels_of(test, "test")
    _check_same_classes(train, test)
    network = build_judge_network(train.channels, train.image_size, train.num_classes, config)
    network.to(device).to(memory_format=torch.channels_last)
    fit(network, train.images, labels, config, device=device, progress=progress)
    network.eval().requires_grad_(False)
    logits = _in_batches(lambda b: judge_logits(network, b, config), test.images, device)
    predicted = logits.argmax(axis=1)
    accuracy = float((predicted == test_labels).mean())
    return LabelJudge(
        network=network,
        class_names=tuple(train.class_names),
        class_counts=tuple(np.bincount(labels, minlength=train.num_classes).tolist()),
        channels=train.channels,
        image_size=train.image_size,
        test_accuracy=accuracy,
        majority_share=majority_share(test_labels),
        num_test_images=test.num_images,
        fingerprint=classifier_fingerprint(train, test, config),
        config=config,
        device=device,
    )


def majority_share(labels: np.ndarray) -> float:
    """Return the share of ``labels`` [N] that are the commonest one."""
    return float(np.bincount(labels).max() / len(labels))


def _check_same_classes(train: ImageSet, test: ImageSet) -> None:
    if train.class_names != test.class_names:
        raise DataError(
            f"The label judge got training classes {train.class_names} and test classes "
            f"{test.class_names}; allowed are the same names in the same order"
        )


def labels_of(images: ImageSet, split: str) -> np.ndarray:
    """Return the labels [N] of a split that a judge can be trained or measured on.

    Raises:
        SettingsError: it has no labels, no images, or fewer than two classes.
    """
    if images.labels is None or images.num_classes < 2 or not images.num_images:
        raise SettingsError(
            f"The label judge needs images of at least two classes; the {split} split has "
            f"{images.num_images} images, {images.num_classes} classes and "
            f"{'no ' if images.labels is None else ''}labels; set "
            "images.label_column"
        )
    return images.labels


def save_classifier(path: Path, judge: LabelJudge) -> None:
    """Write a trained judge's weights (safetensors) and all that is needed to build it again.

    Raises:
        CheckpointError: the judge is from a file.
    """
    if isinstance(judge.network, FileNetwork):
        raise CheckpointError(f"the label judge {judge.origin} was not trained here; keep its file")
    metadata = {
        "format": FORMAT,
        "fingerprint": judge.fingerprint,
        "class_names": list(judge.class_names),
        "class_counts": list(judge.class_counts),
        "channels": judge.channels,
        "image_size": judge.image_size,
        "test_accuracy": judge.test_accuracy,
        "majority_share": judge.majority_share,
        "num_test_images": judge.num_test_images,
        "config": judge.config.model_dump(mode="json"),
    }
    weights = {name: tensor.contiguous() for name, tensor in judge.network.state_dict().items()}
    save_tensors(path, weights, metadata)


def load_matching_classifier(
    path: Path, fingerprint: str, device: torch.device
) -> LabelJudge | None:
    """Return the stored label judge if it was made from what ``fingerprint`` says, else None.

    A file that is missing, unreadable or of other data or settings is no error: the caller trains
    anew. The reason is logged.
    """
    if not path.is_file():
        return None
    try:
        weights, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT or metadata.get("fingerprint") != fingerprint:
            logger.info("Label judge %s was made from other data or settings", path)
            return None
        return _rebuild(weights, metadata, device)
    except (CheckpointError, KeyError, RuntimeError, ValueError) as error:
        logger.warning("Label judge %s is unusable: %s", path, error)
        return None


def _rebuild(
    weights: dict[str, Tensor], metadata: dict[str, Any], device: torch.device
) -> LabelJudge:
    config = ClassifierConfig(**metadata["config"])
    network = build_judge_network(
        metadata["channels"],
        metadata["image_size"],
        len(metadata["class_names"]),
        config,
    )
    network.load_state_dict(weights)
    network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return LabelJudge(
        network=network,
        class_names=tuple(metadata["class_names"]),
        class_counts=tuple(metadata["class_counts"]),
        channels=metadata["channels"],
        image_size=metadata["image_size"],
        test_accuracy=metadata["test_accuracy"],
        majority_share=metadata["majority_share"],
        num_test_images=metadata["num_test_images"],
        fingerprint=metadata["fingerprint"],
        config=config,
        device=device,
    )
