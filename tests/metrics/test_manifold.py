"""The prdc package on the same features, and extremes."""

from dataclasses import asdict

import numpy as np
import pytest
from prdc import compute_prdc

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics import distances
from phoenix_pipeline.metrics.manifold import manifold_scores


def normal(seed: int, count: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=(count, 12)) + 5).astype(np.float32)


@pytest.mark.parametrize("block_values", [100, 8_000_000])
@pytest.mark.parametrize(("scale", "nearest_k"), [(1.0, 5), (0.7, 3), (1.5, 1)])
def test_equals_prdc(
    monkeypatch: pytest.MonkeyPatch, block_values: int, scale: float, nearest_k: int
):
    monkeypatch.setattr(distances, "_BLOCK_VALUES", block_values)
    real, fake = normal(0, 300), normal(1, 170, scale)
    theirs = compute_prdc(real, fake, nearest_k)
    ours = asdict(manifold_scores(fake, real, nearest_k))
    assert ours == pytest.approx({name: float(value) for name, value in theirs.items()}, abs=1e-12)
    assert 0 < ours["recall"] < 1


def test_copies_are_perfect_and_far_images_worthless():
    real = normal(0, 100)
    assert min(asdict(manifold_scores(real, real, 5)).values()) == pytest.approx(1.0)
    far = asdict(manifold_scores(real + 1000, real, 5))
    assert far == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_one_repeated_image_is_precise_and_covers_almost_nothing():
    real = normal(0, 100)
    scores = manifold_scores(np.repeat(real[:1], 50, axis=0), real, 5)
    assert scores.precision == 1.0
    assert scores.coverage < 0.2
    assert scores.recall == 0.0


def test_refuses_too_few_images_for_k():
    with pytest.raises(SettingsError, match="more than 5"):
        manifold_scores(normal(0, 5), normal(1, 50), 5)
    assert manifold_scores(normal(0, 6), normal(1, 6), 5).precision <= 1.0
