"""A label judge from the user's own file: checked and measured before anything rests on it."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import torch

from phoenix_pipeline.config import ClassifierConfig, JudgeFileConfig
from phoenix_pipeline.errors import CheckpointError, DataError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.metrics.classifier import LabelJudge, labels_of, majority_share
from phoenix_pipeline.metrics.network_file import SETTING, FileNetwork, open_network

logger = logging.getLogger(__name__)

FORMAT = "own_judge/1"
_TRIAL_IMAGES = 8
_NEAR_ONE = 1e-3


def measure_own_judge(
    train: ImageSet, test: ImageSet, config: ClassifierConfig, device: torch.device
) -> LabelJudge:
    """Return the judge in ``config.file.path`` with its accuracy on ``test``.

    Raises:
        SettingsError: a split has fewer than two classes or no labels, there is no such file, or it
            does not fit the images, the classes or ``config.file``.
        CheckpointError: the file is broken.
        DataError: an output is not finite.
    """
    network = _open(test, config.file, device)
    fingerprint = own_judge_fingerprint(train, test, config)
    judge = _judge(network, train, test, config, device, fingerprint, 0.0)
    predicted = judge.probabilities(test.images).argmax(axis=1)
    accuracy = float((predicted == labels_of(test, "test")).mean())
    if accuracy < 2 / test.num_classes:
        logger.warning(
            "the label judge %s is right on %.1f %% of the test images: compare value_range, mean, "
            "std, channels and classes in %s with what it was trained on",
            config.file.path,
            100 * accuracy,
            SETTING,
        )
    return _judge(network, train, test, config, device, fingerprint, accuracy)


def own_judge_fingerprint(train: ImageSet, test: ImageSet, config: ClassifierConfig) -> str:
    """Return the sha256 of everything that the judge and its accuracy depend on, file included."""
    parts = [FORMAT, train.fingerprint(), test.fingerprint(), config.file.model_dump_json()]
    digest = hashlib.sha256("\n".join(parts).encode())
    with _existing(config.file).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def save_measurement(path: Path, judge: LabelJudge) -> None:
    """Write what was measured; the network stays in the user's file."""
    write_json(
        path,
        {
            "format": FORMAT,
            "fingerprint": judge.fingerprint,
            "file": judge.config.file.path,
            "test_accuracy": judge.test_accuracy,
            "num_test_images": judge.num_test_images,
        },
    )


def load_measured_judge(
    path: Path, train: ImageSet, test: ImageSet, config: ClassifierConfig, device: torch.device
) -> LabelJudge | None:
    """Return the judge if ``path`` has its accuracy on these images, else None.

    Raises:
        SettingsError, CheckpointError: as :func:`measure_own_judge`.
    """
    fingerprint = own_judge_fingerprint(train, test, config)
    if not path.is_file():
        return None
    try:
        stored = read_json(path)
        if stored["fingerprint"] != fingerprint:
            return None
        accuracy = float(stored["test_accuracy"])
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s is unusable: %s", path, error)
        return None
    network = _open(test, config.file, device)
    return _judge(network, train, test, config, device, fingerprint, accuracy)


def _existing(file: JudgeFileConfig) -> Path:
    path = Path(file.path or "")
    if not path.is_file():
        raise SettingsError(f"{SETTING}.path is {file.path!r}, which is not a file")
    return path


def _open(test: ImageSet, file: JudgeFileConfig, device: torch.device) -> FileNetwork:
    """Return the network after a trial on a few images."""
    labels_of(test, "test")
    network = FileNetwork(open_network(_existing(file), device), file, _order(file, test))
    channels = file.channels or test.channels
    if len(file.mean) not in (0, 1, channels):
        raise SettingsError(
            f"{SETTING}.mean has {len(file.mean)} values for {channels} channel(s); allowed are "
            f"none, 1 or {channels}"
        )
    images = torch.from_numpy(np.ascontiguousarray(test.images[:_TRIAL_IMAGES])).to(device)
    with torch.inference_mode():
        outputs = network.raw(images).cpu().numpy()
    _check_outputs(outputs, test, file)
    return network


def _order(file: JudgeFileConfig, test: ImageSet) -> tuple[int, ...]:
    if not file.classes:
        return tuple(range(test.num_classes))
    if sorted(file.classes) != sorted(test.class_names):
        raise SettingsError(
            f"{SETTING}.classes is {list(file.classes)}; allowed are the images' classes "
            f"{list(test.class_names)}, in the order of the file's outputs"
        )
    return tuple(file.classes.index(name) for name in test.class_names)


def _check_outputs(outputs: np.ndarray, test: ImageSet, file: JudgeFileConfig) -> None:
    if outputs.shape[1] != test.num_classes:
        raise SettingsError(
            f"{SETTING}.path {file.path!r} has {outputs.shape[1]} outputs, and the images have "
            f"{test.num_classes} classes ({', '.join(test.class_names)}); allowed is one for each"
        )
    if not np.isfinite(outputs).all():
        raise DataError(f"{SETTING}.path {file.path!r} gives values that are not finite")
    sums_to_one = (abs(outputs.sum(axis=1) - 1) < _NEAR_ONE).all() and outputs.min() >= 0
    if sums_to_one != (file.outputs == "probabilities"):
        raise SettingsError(
            f"{SETTING}.outputs is {file.outputs}, but the file gives values from "
            f"{outputs.min():.3g} to {outputs.max():.3g} that "
            f"{'are' if sums_to_one else 'are no'} probabilities; set it to "
            f"{'probabilities' if sums_to_one else 'logits'}"
        )


def _judge(
    network: FileNetwork,
    train: ImageSet,
    test: ImageSet,
    config: ClassifierConfig,
    device: torch.device,
    fingerprint: str,
    accuracy: float,
) -> LabelJudge:
    counts = np.bincount(labels_of(train, "training"), minlength=train.num_classes)
    return LabelJudge(
        network=network,
        class_names=tuple(train.class_names),
        class_counts=tuple(counts.tolist()),
        channels=train.channels,
        image_size=train.image_size,
        test_accuracy=accuracy,
        majority_share=majority_share(labels_of(test, "test")),
        num_test_images=test.num_images,
        fingerprint=fingerprint,
        config=config,
        device=device,
    )
