"""What all arms are held against: the label judge, reference statistics, and the floor.

Judge and references are made again only where images or settings changed; whoever reads them
refuses what was made from others.
"""

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from phoenix_pipeline.config import EvaluationConfig, RunConfig
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.arm_metrics import Evaluated
from phoenix_pipeline.metrics.components import available_extractors, check_extractors
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor
from phoenix_pipeline.metrics.judge_training import train_classifier
from phoenix_pipeline.metrics.label_judge import (
    JUDGE_FILE,
    LabelJudge,
    load_judge,
    measure_own_judge,
    save_judge,
)
from phoenix_pipeline.metrics.reference import (
    build_reference,
    expected_provenance,
    load_reference,
    reference_labels,
    save_reference,
)
from phoenix_pipeline.metrics.scores import Yardstick, score_real_images
from phoenix_pipeline.progress import progress_bar

logger = logging.getLogger(__name__)


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
        if reason := _why_no_judge(train, test):
            logger.info("%s: no classifier, no class histogram", reason)
            (folder / JUDGE_FILE).unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            return
        given = train, test, config.classifier, device
        judge = load_judge(folder, *given)
        if judge is None:
            if config.classifier.file.path is not None:
                judge = measure_own_judge(*given)
            else:
                with progress_bar("training the label judge", config.classifier.epochs) as advance:
                    judge = train_classifier(*given, progress=advance)
            save_judge(folder, judge)
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


def scored_with(train: ImageSet, test: ImageSet, config: EvaluationConfig) -> Evaluated:
    """Return what scores must have in common to be compared: settings, and digests of images."""
    return {
        "evaluation": config.model_dump(mode="json"),
        "train_images": train.fingerprint()[:16],
        "test_images": test.fingerprint()[:16],
    }


def _open(
    train: ImageSet, test: ImageSet, judge_folder: Path, config: EvaluationConfig, run: RunConfig
) -> tuple[LabelJudge | None, list[FeatureExtractor], dict[str, str]]:
    """Return the judge in ``judge_folder``, the extractors, and why others cannot be had.

    There is no judge of images without labels, or of a single class.
    Raises CheckpointError: the judge was made from other images or settings.
    """
    device, judge = resolve_device(run.device), None
    if not _why_no_judge(train, test):
        judge = load_judge(judge_folder, train, test, config.classifier, device)
        if judge is None:
            raise CheckpointError(
                f"the judge in {judge_folder} was made for other images or settings; run the nodes "
                "train_label_judge and prepare_references again (`--pipelines evaluation` has both)"
            )
    found = available_extractors(config, train.channels, train.image_size, judge, device)
    return judge, *found


def prepare_references(
    train: ImageSet, test: ImageSet, judge_folder: Path, config: EvaluationConfig, run: RunConfig
) -> Callable[[Path], None]:
    """Return a function that writes the reference statistics which its folder does not have."""
    _, extractors, _ = _open(train, test, judge_folder, config, run)

    def write(folder: Path) -> None:
        for extractor in extractors:
            path = folder / f"{extractor.name}.safetensors"
            try:
                load_reference(path, expected_provenance(extractor, train, test, config))
                continue
            except CheckpointError:
                total = 2 * train.num_images + test.num_images
            with progress_bar(f"reference {extractor.name}", total) as advance:
                reference = build_reference(extractor, train, test, config, progress=advance)
            save_reference(path, reference)

    return write


def load_yardstick(
    train: ImageSet,
    test: ImageSet,
    judge_folder: Path,
    reference_folder: Path,
    config: EvaluationConfig,
    run: RunConfig,
    spaces: Collection[str] | None = None,
) -> Yardstick:
    """Return what the nodes before have left, of ``spaces`` (None: all); raises CheckpointError."""
    judge, found, skipped = _open(train, test, judge_folder, config, run)
    extractors = [each for each in found if spaces is None or each.name in spaces]
    references = {
        each.name: load_reference(
            reference_folder / f"{each.name}.safetensors",
            expected_provenance(each, train, test, config),
        )
        for each in extractors
    }
    labels = reference_labels(train, test, config)
    return Yardstick(judge, extractors, references, config, skipped, labels)


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
    floor = score_real_images(other.images, held, seed=run.seed, labels=other.labels)
    return {
        "scores": floor.scores,
        "num_samples": floor.num_images,
        "conditions": scored_with(train, test, config),
    }


def _why_no_judge(train: ImageSet, test: ImageSet) -> str:
    if train.labels is None or test.labels is None:
        return "the images have no labels"
    return "" if train.num_classes > 1 else "there is only one class"
