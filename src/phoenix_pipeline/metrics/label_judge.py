"""The label judge: a classifier of real images that says which class a sample is.

It is trained here (``judge_training.py``) or of the user's own file, and measured on test images.
"""

import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import CheckpointError, DataError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.metrics.judge_networks import JudgeNetwork, build_judge_network
from phoenix_pipeline.metrics.network_file import (
    SETTING,
    FileNetwork,
    existing_file,
    open_own_judge,
)

logger = logging.getLogger(__name__)

FORMAT, OWN_FORMAT = "label_judge/2", "own_judge/1"
JUDGE_FILE, OWN_JUDGE_FILE = "label_judge.safetensors", "own_judge.json"

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


def build_network(train: ImageSet, config: ClassifierConfig, device: torch.device) -> JudgeNetwork:
    """Return an untrained network for images like ``train``, on ``device``."""
    network = build_judge_network(train.channels, train.image_size, train.num_classes, config)
    return network.to(device).to(memory_format=torch.channels_last)


def measure_judge(
    network: JudgeNetwork | FileNetwork,
    train: ImageSet,
    test: ImageSet,
    config: ClassifierConfig,
    device: torch.device,
    accuracy: float | None = None,
) -> LabelJudge:
    """Return the judge of these images; None: its ``accuracy`` on ``test`` is measured."""
    labels, expected = labels_of(train, "training"), labels_of(test, "test")
    if accuracy is None:
        predicted = judge_logits(network, test.images, config, device).argmax(dim=1).numpy()
        accuracy = float((predicted == expected).mean())
    return LabelJudge(
        network=network,
        class_names=tuple(train.class_names),
        class_counts=tuple(np.bincount(labels, minlength=train.num_classes).tolist()),
        channels=train.channels,
        image_size=train.image_size,
        test_accuracy=accuracy,
        majority_share=float(np.bincount(expected).max() / len(expected)),
        num_test_images=test.num_images,
        fingerprint=judge_fingerprint(train, test, config),
        config=config,
        device=device,
    )


def judge_fingerprint(train: ImageSet, test: ImageSet, config: ClassifierConfig) -> str:
    """Return the sha256 of what a label judge depends on; raises SettingsError without a file."""
    own = config.file.path is not None
    settings = config.file.model_dump_json() if own else config.model_dump_json(exclude={"file"})
    parts = [OWN_FORMAT if own else FORMAT, train.fingerprint(), test.fingerprint(), settings]
    digest = hashlib.sha256("\n".join(parts).encode())
    if own:
        with existing_file(config.file).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def save_judge(folder: Path, judge: LabelJudge) -> None:
    """Write what was measured, and of a judge that was trained here its weights."""
    facts = {"fingerprint": judge.fingerprint, "test_accuracy": judge.test_accuracy}
    if isinstance(judge.network, FileNetwork):
        content = {"format": OWN_FORMAT, "file": judge.config.file.path, **facts}
        write_json(folder / OWN_JUDGE_FILE, content)
    else:
        save_tensors(folder / JUDGE_FILE, judge.network.state_dict(), {"format": FORMAT, **facts})


def load_judge(
    folder: Path, train: ImageSet, test: ImageSet, config: ClassifierConfig, device: torch.device
) -> LabelJudge | None:
    """Return the judge in ``folder`` if of these images and settings, else None, and log why.

    Raises SettingsError, CheckpointError: one of the user's own, as :func:`measure_own_judge`.
    """
    own = config.file.path is not None
    path = folder / (OWN_JUDGE_FILE if own else JUDGE_FILE)
    fingerprint = judge_fingerprint(train, test, config)
    if not path.is_file():
        return None
    try:
        weights, facts = ({}, read_json(path)) if own else load_tensors(path)
        if facts["fingerprint"] != fingerprint:
            logger.info("Label judge %s was made from other data or settings", path)
            return None
        accuracy = float(facts["test_accuracy"])
        network = None if own else build_network(train, config, device)
        if network is not None:
            network.load_state_dict(weights)
            network.eval().requires_grad_(False)
    except (CheckpointError, KeyError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("Label judge %s is unusable: %s", path, error)
        return None
    opened = network or open_own_judge(test, config.file, device)
    return measure_judge(opened, train, test, config, device, accuracy)


def measure_own_judge(
    train: ImageSet, test: ImageSet, config: ClassifierConfig, device: torch.device
) -> LabelJudge:
    """Return the user's judge, measured; raises SettingsError, CheckpointError, DataError."""
    labels_of(test, "test")
    judge = measure_judge(open_own_judge(test, config.file, device), train, test, config, device)
    if judge.test_accuracy < 2 / test.num_classes:
        logger.warning(
            "the label judge %s is right on %.1f %% of the test images: compare value_range, mean, "
            "std, channels and classes in %s with what it was trained on",
            config.file.path,
            100 * judge.test_accuracy,
            SETTING,
        )
    return judge
