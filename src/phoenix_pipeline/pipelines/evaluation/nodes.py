"""Score an arm's samples against real images; judge and references are made once for all arms."""

import logging
from pathlib import Path
from typing import Any

from phoenix_pipeline.config import EvaluationConfig, RunConfig, SamplingConfig
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet, read_samples
from phoenix_pipeline.metrics.classifier import (
    LabelJudge,
    classifier_fingerprint,
    load_matching_classifier,
    save_classifier,
    train_classifier,
)
from phoenix_pipeline.metrics.extractors import available_extractors
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor
from phoenix_pipeline.metrics.reference import (
    ReferenceStatistics,
    build_reference,
    check_reference,
    expected_provenance,
    load_reference,
    save_reference,
)
from phoenix_pipeline.metrics.scores import Scores, score_real_images, score_samples
from phoenix_pipeline.pipelines.progress import progress_bar

logger = logging.getLogger(__name__)

_JUDGE = "label_judge.safetensors"


def train_label_judge(
    train: ImageSet, test: ImageSet, config: EvaluationConfig, run: RunConfig, folder: Path
) -> Path:
    """Train the classifier that judges classes, unless ``folder`` has it for these images."""
    device = resolve_device(run.device)
    if train.labels is None or test.labels is None:
        logger.info("the images have no labels: no classifier, no class histogram")
        (folder / _JUDGE).unlink(missing_ok=True)
        return folder
    fingerprint = classifier_fingerprint(train, test, config.classifier, run.seed)
    judge = load_matching_classifier(folder / _JUDGE, fingerprint, device)
    if judge is None:
        with progress_bar("training the label judge", config.classifier.epochs) as advance:
            judge = train_classifier(
                train, test, config.classifier, run.seed, device, progress=advance
            )
        save_classifier(folder / _JUDGE, judge)
    logger.info("label judge: %.2f %% of held-out images", 100 * judge.test_accuracy)
    return folder


def prepare_references(
    train: ImageSet,
    test: ImageSet,
    judge_folder: Path,
    config: EvaluationConfig,
    run: RunConfig,
    folder: Path,
) -> tuple[Path, dict[str, Any]]:
    """Write the reference statistics that are missing; return them and the real images' floor."""
    judge = _load_judge(judge_folder, train, test, config, run)
    extractors, skipped = _extractors(train, judge, config, run)
    for extractor in extractors:
        path = folder / f"{extractor.name}.safetensors"
        if _fits(path, extractor, train, test, config):
            continue
        total = 2 * train.num_images + test.num_images
        with progress_bar(f"reference {extractor.name}", total) as advance:
            reference = build_reference(extractor, train, test, config, progress=advance)
        save_reference(path, reference)
    references = _load_references(folder, extractors, train, test, config)
    other = test if config.reference_split == "train" else train
    floor = score_real_images(
        other.images, references, judge, config, seed=run.seed, skipped=skipped
    )
    return folder, {**floor.scores, "num_samples": floor.num_images}


def evaluate(
    samples_file: Path,
    train: ImageSet,
    test: ImageSet,
    judge_folder: Path,
    reference_folder: Path,
    config: EvaluationConfig,
    sampling: SamplingConfig,
    run: RunConfig,
) -> dict[str, Any]:
    """Return the arm's metrics, the class histogram, and all that a reader needs beside them."""
    samples = read_samples(samples_file).images.images
    judge = _load_judge(judge_folder, train, test, config, run)
    extractors, skipped = _extractors(train, judge, config, run)
    references = _load_references(reference_folder, extractors, train, test, config)
    with progress_bar("evaluating", len(samples) * len(extractors)) as advance:
        scores = score_samples(
            samples,
            references,
            judge,
            extractors,
            config,
            seed=run.seed,
            skipped=skipped,
            progress=advance,
        )
    return {
        "conditions": {
            "reference_split": config.reference_split,
            "num_samples": scores.num_images,
            "num_reference": scores.num_reference,
            "sampler": sampling.sampler,
            "num_steps": sampling.num_steps,
            "timestep_spacing": sampling.timestep_spacing,
            "weights": sampling.weights,
            "seed": run.seed,
        },
        "scores": scores.scores,
        "class_histogram": _histogram(scores, judge),
        "skipped": scores.skipped,
    }


def _histogram(scores: Scores, judge: LabelJudge | None) -> dict[str, Any] | None:
    if scores.histogram is None or judge is None:
        return None
    total = sum(int(count) for count in judge.class_counts)
    return {
        "class_names": list(scores.histogram.class_names),
        "counts": [int(count) for count in scores.histogram.counts],
        "shares": [float(share) for share in scores.histogram.shares],
        "training_shares": [int(count) / total for count in judge.class_counts],
        "classifier_test_accuracy": float(judge.test_accuracy),
    }


def _load_judge(
    folder: Path, train: ImageSet, test: ImageSet, config: EvaluationConfig, run: RunConfig
) -> LabelJudge | None:
    if train.labels is None or test.labels is None:
        return None
    fingerprint = classifier_fingerprint(train, test, config.classifier, run.seed)
    judge = load_matching_classifier(folder / _JUDGE, fingerprint, resolve_device(run.device))
    if judge is None:
        raise CheckpointError(
            f"{folder / _JUDGE} was made for other images or settings; "
            "run the node train_label_judge again"
        )
    return judge


def _extractors(
    train: ImageSet, judge: LabelJudge | None, config: EvaluationConfig, run: RunConfig
) -> tuple[list[FeatureExtractor], dict[str, str]]:
    return available_extractors(
        config, train.channels, train.image_size, judge, resolve_device(run.device)
    )


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


def _load_references(
    folder: Path,
    extractors: list[FeatureExtractor],
    train: ImageSet,
    test: ImageSet,
    config: EvaluationConfig,
) -> dict[str, ReferenceStatistics]:
    references = {}
    for extractor in extractors:
        reference = load_reference(folder / f"{extractor.name}.safetensors")
        check_reference(reference, expected_provenance(extractor, train, test, config))
        references[extractor.name] = reference
    return references
