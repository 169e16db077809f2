"""Real images' part in the scores, in one feature space: an artifact, by no run's seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.feature_extractor import Advance, FeatureExtractor, extract_features
from phoenix_pipeline.metrics.frechet import GaussianStatistics, gaussian_statistics
from phoenix_pipeline.metrics.memorization import MemorizationBaseline, memorization_baseline
from phoenix_pipeline.seeding import numpy_generator

MAX_COMPARED = 10_000

Provenance = dict[str, str | int]


@dataclass(frozen=True)
class ReferenceStatistics:
    """Real images in one feature space.

    ``features`` [N, D] float32 are of the reference split in random order (KID and the manifolds
    use the first 10,000); ``held_out_features`` [M, D] of the other split, for the floor.
    ``memorization`` is None where ``memorization_skipped`` says why.
    """

    statistics: GaussianStatistics
    features: np.ndarray
    held_out_features: np.ndarray
    memorization: MemorizationBaseline | None
    memorization_skipped: str
    provenance: Provenance

    @property
    def compared_features(self) -> np.ndarray:
        """At most 10,000 reference features, for metrics that look at pairs."""
        return self.features[:MAX_COMPARED]


def expected_provenance(
    extractor: FeatureExtractor, train: ImageSet, test: ImageSet, config: EvaluationConfig
) -> Provenance:
    """Return what a reference made from these would say of itself, without making it."""
    split = train if config.reference_split == "train" else test
    return {
        "extractor": extractor.name,
        "extractor_fingerprint": extractor.fingerprint,
        "preprocessing": extractor.preprocessing,
        "split": config.reference_split,
        "num_images": min(split.num_images, config.max_reference_images or split.num_images),
        "train_data": train.fingerprint(),
        "test_data": test.fingerprint(),
    }


def reference_order(num_images: int) -> np.ndarray:
    """Return the rows of a split in the order of the features of a reference."""
    return numpy_generator(0, "reference_images").permutation(num_images)


def reference_labels(
    train: ImageSet, test: ImageSet, config: EvaluationConfig
) -> np.ndarray | None:
    """Return the labels int64 of the rows of a reference's ``features``; None without labels."""
    split = train if config.reference_split == "train" else test
    if split.labels is None:
        return None
    return split.labels[reference_order(split.num_images)[: config.max_reference_images]]


def build_reference(
    extractor: FeatureExtractor,
    train: ImageSet,
    test: ImageSet,
    config: EvaluationConfig,
    progress: Advance | None = None,
) -> ReferenceStatistics:
    """Extract what the metrics need of real images; raises SettingsError for fewer than two."""
    from_train = config.reference_split == "train"
    split, other = (train, test) if from_train else (test, train)

    def features_of(images: ImageSet, limit: int | None) -> np.ndarray:
        order = reference_order(images.num_images)[:limit]
        return extract_features(extractor, images.images[order], config.batch_size, progress)

    features = features_of(split, config.max_reference_images)
    held_out = features_of(other, MAX_COMPARED)
    training: np.ndarray | None = None
    if from_train and len(features) == train.num_images:
        training = features
    elif extractor.searches_copies:
        training = features_of(train, None)
    baseline, skipped = _baseline(training, held_out if from_train else features)
    statistics = gaussian_statistics(features)
    searched = baseline is not None and baseline.training_features is features
    return ReferenceStatistics(
        statistics=statistics,
        features=features if searched else features[:MAX_COMPARED],
        held_out_features=held_out,
        memorization=baseline,
        memorization_skipped=skipped,
        provenance=expected_provenance(extractor, train, test, config),
    )


def _baseline(
    training: np.ndarray | None, held_out: np.ndarray
) -> tuple[MemorizationBaseline | None, str]:
    if training is None:
        return None, (
            "needs the features of every training image: set evaluation.reference_split to train "
            "and evaluation.max_reference_images to null"
        )
    try:
        return memorization_baseline(training, held_out), ""
    except SettingsError as error:
        return None, str(error)


def save_reference(path: Path, reference: ReferenceStatistics) -> None:
    """Write the reference as safetensors with its provenance."""
    arrays = {
        "mean": reference.statistics.mean,
        "covariance": reference.statistics.covariance,
        "features": reference.features,
        "held_out_features": reference.held_out_features,
    }
    baseline = reference.memorization
    if baseline is not None:
        arrays["held_out_ratios"] = baseline.held_out_ratios
        if baseline.training_features is not reference.features:
            arrays["training_features"] = baseline.training_features
    metadata = {
        "provenance": reference.provenance,
        "num_images": reference.statistics.num_images,
        "memorization_skipped": reference.memorization_skipped,
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    save_tensors(path, tensors, metadata)


def load_reference(path: Path, expected: Mapping[str, str | int]) -> ReferenceStatistics:
    """Read a reference back that was made from what ``expected`` says.

    Raises CheckpointError: the file is missing, broken or not a reference, or its data,
    preprocessing or extractor differ; lists what was got and what is expected.
    """
    tensors, metadata = load_tensors(path)
    got = metadata.get("provenance", {})
    if got and got != expected:
        keys = [key for key in sorted({*got, *expected}) if got.get(key) != expected.get(key)]
        details = "; ".join(f"{k}: got {got.get(k)}, expected {expected.get(k)}" for k in keys)
        raise CheckpointError(
            f"The reference statistics were made from something else: {details}; delete {path} to "
            "have them made anew"
        )
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        ratios = arrays.get("held_out_ratios")
        training = arrays.get("training_features", arrays["features"])
        return ReferenceStatistics(
            statistics=GaussianStatistics(
                arrays["mean"], arrays["covariance"], metadata["num_images"]
            ),
            features=arrays["features"],
            held_out_features=arrays["held_out_features"],
            memorization=None if ratios is None else MemorizationBaseline(training, ratios),
            memorization_skipped=metadata["memorization_skipped"],
            provenance=metadata["provenance"],
        )
    except KeyError as error:
        raise CheckpointError(
            f"{path} is not reference statistics: {error} is missing; delete it to have it made"
        ) from error
