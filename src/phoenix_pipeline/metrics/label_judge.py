"""What the label judge is: a classifier of real images that says which class a sample is."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.judge_networks import JudgeNetwork
from phoenix_pipeline.metrics.network_file import FileNetwork

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
        expected = (self.channels, self.image_size, self.image_size)
        if images.dtype != np.uint8 or images.shape[1:] != expected or not len(images):
            raise DataError(
                f"The label judge got {images.dtype} images of shape {images.shape}; allowed is "
                f"uint8 [N >= 1, {', '.join(map(str, expected))}], as in its training split"
            )
        logits = judge_logits(self.network, images, self.config, self.device)
        return logits.softmax(dim=1).numpy()

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


def judge_logits(
    network: JudgeNetwork | FileNetwork,
    images: np.ndarray,
    config: ClassifierConfig,
    device: torch.device,
) -> Tensor:
    """Return float32 [N, classes]; with ``horizontal_flip`` the mean over image and mirror image.

    A judge from a file is asked once: whether mirroring keeps its classes is not known.
    """
    mirrors, rows = config.horizontal_flip and config.file.path is None, []
    with torch.inference_mode():
        for start in range(0, len(images), _INFERENCE_BATCH):
            part = np.ascontiguousarray(images[start : start + _INFERENCE_BATCH])
            batch = torch.from_numpy(part).to(device)
            found = network(batch)
            if mirrors:
                found = (found + network(batch.flip(3))) / 2
            rows.append(found.float().cpu())
        return torch.cat(rows)


def labels_of(images: ImageSet, split: str) -> np.ndarray:
    """Return the labels [N] for a judge; raises SettingsError for none, or fewer than 2 classes."""
    if images.labels is None or images.num_classes < 2 or not images.num_images:
        raise SettingsError(
            f"The label judge needs images of at least two classes; the {split} split has "
            f"{images.num_images} images, {images.num_classes} classes and "
            f"{'no ' if images.labels is None else ''}labels; set "
            "images.label_column"
        )
    return images.labels
