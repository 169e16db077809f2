"""The Frechet distance between two sets of features, seen as Gaussians."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.metrics.metric import FIDELITY, FeatureInputs, FeatureScores, Headline, Metric

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class GaussianStatistics:
    """Mean [D] and unbiased covariance [D, D], float64, of ``num_images`` feature vectors."""

    mean: np.ndarray
    covariance: np.ndarray
    num_images: int


def gaussian_statistics(features: np.ndarray) -> GaussianStatistics:
    """Return mean and covariance of [N, D] in float64; raises SettingsError, DataError."""
    count, width = features.shape
    if count < 2:
        raise SettingsError(
            f"A Frechet distance got {count} image(s); allowed is 2 or more; raise "
            "sampling.num_images"
        )
    check_finite(features)
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for start in range(0, count, _ROWS_AT_A_TIME):
        centred = features[start : start + _ROWS_AT_A_TIME] - mean
        covariance += centred.T @ centred
    return GaussianStatistics(mean, covariance / (count - 1), count)


def check_finite(features: np.ndarray) -> None:
    """Raise DataError for features with a value that is not finite."""
    if not np.isfinite(features).all():
        raise DataError("A Frechet distance got non-finite features; allowed are finite numbers")


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Return |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), at least 0 (arXiv 1706.08500).

    The trace of the root is taken as the sum of the roots of the eigenvalues of the symmetric F^T B
    F with A = F F^T, which are those of A B and of B A: no complex root, no ridge for singular
    covariances. The value falls with the number of images (roughly c + d / n): compare equal
    numbers only.
    Raises SettingsError: the statistics have different widths.
    Raises DataError: the statistics are not finite.
    """
    if a.mean.shape != b.mean.shape:
        raise SettingsError(
            f"A Frechet distance got {a.mean.size} and {b.mean.size} features; allowed is the same "
            "extractor on both sides"
        )
    if not all(np.isfinite(x).all() for x in (a.mean, a.covariance, b.mean, b.covariance)):
        raise DataError("A Frechet distance got non-finite statistics; allowed are finite numbers")
    root, other = _factor(a.covariance, b.covariance)
    product = root.T @ other @ root
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2)
    trace_of_root = np.sqrt(eigenvalues.clip(min=0.0)).sum()
    offset = a.mean - b.mean
    distance = offset @ offset + np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root
    return float(max(distance, 0.0))


def _factor(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F [D, D] with F F^T = one of both, and the other one.

    F is Cholesky's, or by eigenvalues where both are singular, which takes ten times as long.
    """
    for own, other in ((a, b), (b, a)):
        with suppress(np.linalg.LinAlgError):
            return np.linalg.cholesky(own), other
    values, vectors = np.linalg.eigh(a)
    return vectors * np.sqrt(values.clip(min=0.0)), b


def _measure(inputs: FeatureInputs) -> tuple[float]:
    own = gaussian_statistics(inputs.features)
    return (frechet_distance(own, inputs.reference.statistics),)


SCORES = (
    FeatureScores(
        (
            Metric(
                "fid_",
                "FID",
                "Fréchet distance between the features of samples and of real images: falls as "
                "samples get sharper and as they get more varied; depends on the number of samples",
                "lower",
                FIDELITY,
                headline=Headline(0, keep=13, every_space=True),
            ),
        ),
        _measure,
    ),
)
