"""The prdc package on the same features, and extremes."""

from dataclasses import asdict

import numpy as np
import pytest
from prdc import compute_prdc

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics import manifold
from phoenix_pipeline.metrics.manifold import manifold_scores


def normal(seed: int, count: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=(count, 12)) + 5).astype(np.float32)


@pytest.mark.parametrize("block_values", [100, 8_000_000])
@pytest.mark.parametrize(("scale", "nearest_k"), [(1.0, 5), (0.7, 3), (1.5, 1)])
def test_equals_prdc(
    monkeypatch: pytest.MonkeyPatch, block_values: int, scale: float, nearest_k: int
):
    monkeypatch.setattr(manifold, "_BLOCK_VALUES", block_values)
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


@pytest.mark.parametrize("block_values", [3000, 8_000_000])
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_samples_that_copy_real_images(
    monkeypatch: pytest.MonkeyPatch, block_values: int, noise: float
):
    # Each copied k-th neighbour lies at a radius; integers make the ties of the brute force exact.
    monkeypatch.setattr(manifold, "_BLOCK_VALUES", block_values)
    rng = np.random.default_rng(0)
    real = rng.integers(0, 17, size=(400, 24)).astype(np.float64)
    samples, nearest_k = real[::2], 5

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))

    radii = np.sort(between(real, real), axis=1)[:, nearest_k]
    inside = between(real, samples) < radii[:, None]
    own_radii = np.sort(between(samples, samples), axis=1)[:, nearest_k]
    # A network's features of equal images differ by rounding, and lie far from 0.
    extracted = samples * (1 + noise * rng.normal(size=samples.shape))
    ours = manifold_scores(
        (extracted + 100).astype(np.float32 if not noise else np.float64), real + 100.0, nearest_k
    )
    assert ours.density == pytest.approx(inside.sum(axis=0).mean() / nearest_k, abs=1e-9)
    assert ours.coverage == inside.any(axis=1).mean()
    assert ours.recall == (between(real, samples) < own_radii).any(axis=1).mean()
    assert ours.precision == 1.0


@pytest.mark.parametrize("many", [0.0, 0.02, 2.0])
def test_ties_duplicates_and_far_clusters_are_as_in_brute_force(
    monkeypatch: pytest.MonkeyPatch, many: float
):
    monkeypatch.setattr(manifold, "_MANY", many)
    rng = np.random.default_rng(3)
    for _ in range(60):
        n, m, width = rng.integers(8, 60, 3)
        nearest_k = int(rng.integers(1, 6))
        real = rng.integers(0, rng.integers(2, 6), (n, width)).astype(np.float64)
        real[: n // 2] += 1000 * rng.integers(0, 2)
        samples = real[rng.integers(0, n, m)] + rng.integers(0, 2) * rng.integers(0, 2, (m, width))
        monkeypatch.setattr(manifold, "_BLOCK_VALUES", int(rng.choice([50, 1000, 10**7])))
        limits, own_limits = (
            np.sort(squared_between(points, points), axis=1)[:, nearest_k]
            for points in (real, samples)
        )
        squared = squared_between(real, samples)
        inside = squared < limits[:, None]
        ours = manifold_scores(samples.astype(np.float32), real.astype(np.float32), nearest_k)
        assert ours.precision == inside.any(axis=0).mean()
        assert ours.recall == (squared < own_limits).any(axis=1).mean()
        assert ours.density == pytest.approx(inside.sum(axis=0).mean() / nearest_k)
        assert ours.coverage == inside.any(axis=1).mean()


def squared_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a[:, None] - b[None]) ** 2).sum(axis=2)


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
