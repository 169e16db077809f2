"""Closed forms and torch-fidelity's and scipy's formulas."""

import numpy as np
import pytest
import scipy.linalg
import torch

from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.metrics.frechet import (
    GaussianStatistics,
    frechet_distance,
    gaussian_statistics,
)


def correlated(seed: int, count: int = 400, width: int = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width))
    return (rng.normal(size=(count, width)) @ mixing + rng.normal(size=width)).astype(np.float32)


def test_diagonal_gaussians_have_a_closed_form():
    a = GaussianStatistics(np.array([0.0, 1.0]), np.diag([4.0, 9.0]), 10)
    b = GaussianStatistics(np.array([3.0, 1.0]), np.diag([1.0, 25.0]), 10)
    assert frechet_distance(a, b) == pytest.approx(3**2 + (2 - 1) ** 2 + (3 - 5) ** 2)


def test_a_flat_gaussian_has_a_closed_form_too():
    a = GaussianStatistics(np.zeros(2), np.diag([16.0, 0.0]), 10)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(a.covariance)
    b = GaussianStatistics(np.zeros(2), np.diag([1.0, 25.0]), 10)
    assert frechet_distance(a, b) == pytest.approx((4 - 1) ** 2 + (0 - 5) ** 2)


def test_equals_torch_fidelity_and_the_matrix_root():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = correlated(0), correlated(1)
    ours = frechet_distance(gaussian_statistics(a), gaussian_statistics(b))
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(x).double()) for x in (a, b)), verbose=False
    )["frechet_inception_distance"]
    cov_a, cov_b = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    offset = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert ours == pytest.approx(offset @ offset + np.trace(cov_a + cov_b - 2 * root), rel=1e-9)


def test_is_symmetric_and_zero_to_itself_even_when_singular():
    few = gaussian_statistics(correlated(2, count=5, width=20))
    other = gaussian_statistics(correlated(3, count=7, width=20))
    assert frechet_distance(few, few) == pytest.approx(0.0, abs=1e-4)
    assert frechet_distance(few, other) == pytest.approx(frechet_distance(other, few), rel=1e-6)


def test_statistics_are_float64_across_blocks():
    features = correlated(4, count=9000, width=3) + 1000.0
    statistics = gaussian_statistics(features)
    exact = features.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(exact, rowvar=False), rtol=1e-9)
    assert statistics.num_images == 9000


def test_refuses_one_image_other_widths_and_non_finite_features():
    features = correlated(5, count=10, width=4)
    with pytest.raises(SettingsError, match="1 image"):
        gaussian_statistics(features[:1])
    with pytest.raises(SettingsError, match="same extractor"):
        frechet_distance(gaussian_statistics(features), gaussian_statistics(features[:, :3]))
    features[3, 2] = np.nan
    with pytest.raises(DataError, match="non-finite"):
        gaussian_statistics(features)
