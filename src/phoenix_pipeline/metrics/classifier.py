"""The label judge, trained here or of the user's own file; measured on the test images."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import torch

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import CheckpointError, DataError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.metrics.feature_extractor import Advance
from phoenix_pipeline.metrics.judge_networks import JudgeNetwork, build_judge_network
from phoenix_pipeline.metrics.judge_training import fit
from phoenix_pipeline.metrics.label_judge import LabelJudge, judge_logits, labels_of
from phoenix_pipeline.metrics.network_file import (
    SETTING,
    FileNetwork,
    existing_file,
    open_own_judge,
)

logger = logging.getLogger(__name__)

FORMAT, OWN_FORMAT = "label_judge/2", "own_judge/1"
JUDGE_FILE, OWN_JUDGE_FILE = "label_judge.safetensors", "own_judge.json"


def train_classifier(
    train: ImageSet,
    test: ImageSet,
    config: ClassifierConfig,
    device: torch.device,
    *,
    progress: Advance | None = None,
) -> LabelJudge:
    """Train the label judge on ``train`` and measure it on ``test``.

    Everything random comes from ``config.seed``: all runs with these images share one judge.
    ``progress`` is called with 1 after each of ``config.epochs`` epochs.
    Raises SettingsError: a split has no labels or no images, or there are fewer than two classes.
    Raises DataError: the splits have different classes.
    Raises TrainingError: the loss is not finite.
    """
    labels = labels_of(train, "training")
    labels_of(test, "test")
    if train.class_names != test.class_names:
        raise DataError(
            f"The label judge got training classes {train.class_names} and test classes "
            f"{test.class_names}; allowed are the same names in the same order"
        )
    network = _build_network(train, config, device)
    fit(network, train.images, labels, config, device=device, progress=progress)
    network.eval().requires_grad_(False)
    return _measured(network, train, test, config, device)


def measure_own_judge(
    train: ImageSet, test: ImageSet, config: ClassifierConfig, device: torch.device
) -> LabelJudge:
    """Return the user's judge, measured; raises SettingsError, CheckpointError, DataError."""
    labels_of(test, "test")
    judge = _measured(open_own_judge(test, config.file, device), train, test, config, device)
    if judge.test_accuracy < 2 / test.num_classes:
        logger.warning(
            "the label judge %s is right on %.1f %% of the test images: compare value_range, mean, "
            "std, channels and classes in %s with what it was trained on",
            config.file.path,
            100 * judge.test_accuracy,
            SETTING,
        )
    return judge


def _build_network(train: ImageSet, config: ClassifierConfig, device: torch.device) -> JudgeNetwork:
    network = build_judge_network(train.channels, train.image_size, train.num_classes, config)
    return network.to(device).to(memory_format=torch.channels_last)


def _measured(
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
        network = None if own else _build_network(train, config, device)
        if network is not None:
            network.load_state_dict(weights)
            network.eval().requires_grad_(False)
    except (CheckpointError, KeyError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("Label judge %s is unusable: %s", path, error)
        return None
    if network is None:
        own_network = open_own_judge(test, config.file, device)
        return _measured(own_network, train, test, config, device, accuracy)
    return _measured(network, train, test, config, device, accuracy)
