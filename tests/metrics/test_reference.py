"""Reference statistics: made, stored, read back, and refused when anything differs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from phoenix_pipeline.checkpoints import save_tensors
from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.extractors import pixel_extractor
from phoenix_pipeline.metrics.frechet import gaussian_statistics
from phoenix_pipeline.metrics.memorization import nearest_ratios
from phoenix_pipeline.metrics.reference import (
    build_reference,
    expected_provenance,
    load_reference,
    save_reference,
)

PIXELS = pixel_extractor(1, 8, torch.device("cpu"))


def pixels(images: ImageSet) -> np.ndarray:
    return images.images.reshape(images.num_images, -1) / np.float32(255)


def sorted_rows(features: np.ndarray) -> np.ndarray:
    return features[np.lexsort(features.T)]


def test_holds_the_whole_training_split_by_default(digits: tuple[ImageSet, ImageSet]):
    train, test = digits
    ticks: list[int] = []
    reference = build_reference(PIXELS, train, test, EvaluationConfig(), progress=ticks.append)
    expected = gaussian_statistics(pixels(train))
    np.testing.assert_allclose(reference.statistics.mean, expected.mean, atol=1e-7)
    np.testing.assert_allclose(reference.statistics.covariance, expected.covariance, atol=1e-7)
    np.testing.assert_allclose(
        sorted_rows(reference.held_out_features), sorted_rows(pixels(test)), atol=1e-7
    )
    assert reference.memorization is not None
    ratios = np.sort(nearest_ratios(pixels(test), pixels(train)))
    np.testing.assert_allclose(reference.memorization.held_out_ratios, ratios, atol=1e-6)
    assert sum(ticks) == train.num_images + test.num_images


def test_subset_and_test_split_still_search_all_training_pixels(
    digits: tuple[ImageSet, ImageSet],
):
    train, test = digits
    config = EvaluationConfig(reference_split="test", max_reference_images=200)
    reference = build_reference(PIXELS, train, test, config)
    assert reference.statistics.num_images == len(reference.features) == 200
    assert len(reference.held_out_features) == train.num_images
    assert reference.memorization is not None
    assert len(reference.memorization.training_features) == train.num_images
    assert len(reference.memorization.held_out_ratios) == 200


@pytest.mark.parametrize("config", [EvaluationConfig(), EvaluationConfig(reference_split="test")])
def test_survives_storage(
    tmp_path: Path, digits: tuple[ImageSet, ImageSet], config: EvaluationConfig
):
    reference = build_reference(PIXELS, *digits, config)
    save_reference(tmp_path / "reference.safetensors", reference)
    expected = expected_provenance(PIXELS, *digits, config)
    stored = load_reference(tmp_path / "reference.safetensors", expected)
    for name in ("features", "held_out_features"):
        assert np.array_equal(getattr(stored, name), getattr(reference, name))
    assert np.array_equal(stored.statistics.covariance, reference.statistics.covariance)
    assert stored.statistics.num_images == reference.statistics.num_images
    assert stored.memorization is not None and reference.memorization is not None
    for name in ("training_features", "held_out_ratios"):
        assert np.array_equal(
            getattr(stored.memorization, name), getattr(reference.memorization, name)
        )


def test_refuses_other_data_split_number_or_extractor(
    tmp_path: Path, digits: tuple[ImageSet, ImageSet]
):
    train, test = digits
    config = EvaluationConfig()
    path = tmp_path / "reference.safetensors"
    save_reference(path, build_reference(PIXELS, train, test, config))
    fewer = EvaluationConfig(max_reference_images=100)
    others = {
        "train_data": expected_provenance(PIXELS, train.subset(slice(1, None)), test, config),
        "test_data": expected_provenance(PIXELS, train, test.subset(slice(1, None)), config),
        "split": expected_provenance(PIXELS, train, test, EvaluationConfig(reference_split="test")),
        "num_images": expected_provenance(PIXELS, train, test, fewer),
        "preprocessing": expected_provenance(
            pixel_extractor(3, 8, PIXELS.device), train, test, config
        ),
    }
    for key, expected in others.items():
        with pytest.raises(CheckpointError, match=f"{key}: got .*, expected ") as caught:
            load_reference(path, expected)
        assert ("test_data:" in str(caught.value)) == (key == "test_data")


def test_too_few_held_out_images_leave_memorisation_out(digits: tuple[ImageSet, ImageSet]):
    train, test = digits
    reference = build_reference(PIXELS, train, test.subset(slice(0, 20)), EvaluationConfig())
    assert reference.memorization is None
    assert "20 held-out images" in reference.memorization_skipped
    with pytest.raises(SettingsError, match="1 image"):
        build_reference(PIXELS, train.subset([0]), test, EvaluationConfig())


def test_a_file_that_is_no_reference_is_refused(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"mean": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="is missing"):
        load_reference(path, {})
