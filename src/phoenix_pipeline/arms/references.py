"""What all arms are held against: the label judge, reference statistics, and the floor.

Judge and references are made again only where images or settings changed; whoever reads them
refuses what was made from others.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoenix_pipeline.config import EvaluationConfig, RunConfig
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.arm_metrics import Evaluated
from phoenix_pipeline.metrics.classifier import (
    LabelJudge,
    classifier_fingerprint,
    load_matching_classifier,
    save_classifier,
    train_classifier,
)
from phoenix_pipeline.metrics.extractors import available_extractors, check_extractors
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor
from phoenix_pipeline.metrics.own_judge import (
    load_measured_judge,
    measure_own_judge,
    save_measurement,
)
from phoenix_pipeline.metrics.reference import (
    ReferenceStatistics,
    build_reference,
    check_reference,
    expected_provenance,
    load_reference,
    save_reference,
)
from phoenix_pipeline.metrics.scores import score_real_images
from phoenix_pipeline.progress import progress_bar

logger = logging.getLogger(__name__)

_JUDGE, _OWN_JUDGE = "label_judge.safetensors", "own_judge.json"


def train_label_judge(
    train: ImageSet, test: ImageSet, config: EvaluationConfig, run: RunConfig
) -> Callable[[Path], None]:
    """Return a function that trains the judge of classes, unless its folder has that judge.

    A judge from the user's own file is measured instead. Raises SettingsError for an unknown name
    in ``evaluation.extractors``, so that it is known before any training.
    """
    check_extractors(config)
    device = resolve_device(run.device)

    def write(folder: Path) -> None:
        if not _can_be_judged(train, test):
            unlabelled = train.labels is None or test.labels is None
            reason = "the images have no labels" if unlabelled else "there is only one class"
            logger.info("%s: no classifier, no class histogram", reason)
            (folder / _JUDGE).unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            return
        judge = _find_judge(folder, train, test, config, run)
        if judge is None and config.classifier.file.path is not None:
            judge = measure_own_judge(train, test, config.classifier, device)
            save_measurement(folder / _OWN_JUDGE, judge)
        elif judge is None:
            with progress_bar("training the label judge", config.classifier.epochs) as advance:
                judge = train_classifier(train, test, config.classifier, device, progress=advance)
            save_classifier(folder / _JUDGE, judge)
        logger.info(
            "label judge (%s): right on %.2f %% of held-out images, of which %.2f %% are of the "
            "commonest class",
            judge.origin,
            100 * judge.test_accuracy,
            100 * judge.majority_share,
        )
        if judge.refusal:
            logger.warning("%s: its scores are left out", judge.refusal)

    return write


def _find_judge(
    folder: Path, train: ImageSet, test: ImageSet, config: EvaluationConfig, run: RunConfig
) -> LabelJudge | None:
    """Return the judge that ``folder`` has for these images and settings."""
    device, own = resolve_device(run.device), config.classifier
    if own.file.path is not None:
        return load_measured_judge(folder / _OWN_JUDGE, train, test, own, device)
    fingerprint = classifier_fingerprint(train, test, own)
    return load_matching_classifier(folder / _JUDGE, fingerprint, device)


def _can_be_judged(train: ImageSet, test: ImageSet) -> bool:
    return train.num_classes > 1 and train.labels is not None and test.labels is not None


def prepare_references(
    train: ImageSet, test: ImageSet, judge_folder: Path, config: EvaluationConfig, run: RunConfig
) -> Callable[[Path], None]:
    """Return a function that writes the reference statistics which its folder does not have."""
    judge = load_judge(judge_folder, train, test, config, run)
    extractors, _ = find_extractors(train, judge, config, run)

    def write(folder: Path) -> None:
        for extractor in extractors:
            path = folder / f"{extractor.name}.safetensors"
            if _fits(path, extractor, train, test, config):
                continue
            total = 2 * train.num_images + test.num_images
            with progress_bar(f"reference {extractor.name}", total) as advance:
                reference = build_reference(extractor, train, test, config, progress=advance)
            save_reference(path, reference)

    return write


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What samples are held against: a judge where there are classes, and real images' statistics.

    ``references``: of each of the ``extractors``, by its name. ``skipped``: why others cannot be
    had.
    """

    judge: LabelJudge | None
    extractors: Sequence[FeatureExtractor]
    references: Mapping[str, ReferenceStatistics]
    skipped: Mapping[str, str]


def load_yardstick(
    train: ImageSet,
    test: ImageSet,
    judge_folder: Path,
    reference_folder: Path,
    config: EvaluationConfig,
    run: RunConfig,
    spaces: Collection[str] | None = None,
) -> Yardstick:
    """Return what :func:`train_label_judge` and :func:`prepare_references` have left.

    ``spaces``: names of the extractors to take; None: all.

    Raises:
        CheckpointError: something is missing, or was made from other images or settings.
    """
    judge = load_judge(judge_folder, train, test, config, run)
    found, skipped = find_extractors(train, judge, config, run)
    extractors = [each for each in found if spaces is None or each.name in spaces]
    references = load_references(reference_folder, extractors, train, test, config)
    return Yardstick(judge, extractors, references, skipped)


def score_floor(
    train: ImageSet,
    test: ImageSet,
    judge_folder: Path,
    reference_folder: Path,
    config: EvaluationConfig,
    run: RunConfig,
) -> dict[str, Any]:
    """Return the scores of real images of the split that is not the reference, and how made."""
    held = load_yardstick(train, test, judge_folder, reference_folder, config, run)
    other = test if config.reference_split == "train" else train
    floor = score_real_images(
        other.images, held.references, held.judge, config, seed=run.seed, skipped=held.skipped
    )
    return {
        "scores": floor.scores,
        "num_samples": floor.num_images,
        "conditions": scored_with(train, test, config),
    }


def scored_with(train: ImageSet, test: ImageSet, config: EvaluationConfig) -> Evaluated:
    """Return what scores must have in common to be compared: settings, and digests of images."""
    return {
        "evaluation": config.model_dump(mode="json"),
        "train_images": train.fingerprint()[:16],
        "test_images": test.fingerprint()[:16],
    }


def load_judge(
    folder: Path, train: ImageSet, test: ImageSet, config: EvaluationConfig, run: RunConfig
) -> LabelJudge | None:
    """Return the judge in ``folder``, None for images without labels, or of a single class.

    Raises:
        CheckpointError: it was made from other images or settings.
    """
    if not _can_be_judged(train, test):
        return None
    judge = _find_judge(folder, train, test, config, run)
    if judge is None:
        raise CheckpointError(
            f"the judge in {folder} was made for other images or settings; run the nodes "
            "train_label_judge and prepare_references again (`--pipelines evaluation` has both)"
        )
    return judge


def find_extractors(
    train: ImageSet, judge: LabelJudge | None, config: EvaluationConfig, run: RunConfig
) -> tuple[list[FeatureExtractor], dict[str, str]]:
    """Return the extractors that can be had for these images, and why the others cannot."""
    device = resolve_device(run.device)
    return available_extractors(config, train.channels, train.image_size, judge, device)


def load_references(
    folder: Path,
    extractors: Sequence[FeatureExtractor],
    train: ImageSet,
    test: ImageSet,
    config: EvaluationConfig,
) -> dict[str, ReferenceStatistics]:
    """Return the statistics of each extractor by its name.

    Raises:
        CheckpointError: one is missing or was made from something else.
    """
    references = {}
    for extractor in extractors:
        reference = load_reference(folder / f"{extractor.name}.safetensors")
        check_reference(reference, expected_provenance(extractor, train, test, config))
        references[extractor.name] = reference
    return references


def _fits(
    path: Path,
    extractor: FeatureExtractor,
    train: ImageSet,
    test: ImageSet,
    config: EvaluationConfig,
) -> bool:
    try:
        expected = expected_provenance(extractor, train, test, config)
        check_reference(load_reference(path), expected)
    except CheckpointError:
        return False
    return True
