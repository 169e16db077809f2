"""Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797).

Ours, because the ``prdc`` package prints, and holds every pair of distances at once (800 MB each
for 10,000 images); a test shows equal numbers on the same features.
"""

from dataclasses import dataclass

import numpy as np

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.distances import distance_blocks, nearest_distances

# A sample that copies a real image lies at the very radius of those of which that one is the k-th
# neighbour, and is not inside: features of equal images differ by rounding alone.
_TIE = 1e-6


@dataclass(frozen=True)
class ManifoldScores:
    """Precision and density: fidelity; recall and coverage: diversity. Density may exceed 1.

    Blurred images score high on precision and density: read them with recall and coverage.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(samples: np.ndarray, reference: np.ndarray, nearest_k: int) -> ManifoldScores:
    """Compare ``samples`` [N, D] with ``reference`` [M, D], manifolds of ``nearest_k`` neighbours.

    A point at the very radius of a ball is outside, as in ``prdc``.

    Raises:
        SettingsError: a side has no ``nearest_k`` other images.
    """
    if min(len(samples), len(reference)) <= nearest_k:
        raise SettingsError(
            f"Precision and recall got {len(samples)} samples and {len(reference)} reference "
            f"images for evaluation.nearest_k={nearest_k}; allowed is more than {nearest_k} of each"
        )
    origin = reference.mean(axis=0, dtype=np.float64)
    reference_radii = _radii(reference, nearest_k, origin)
    sample_radii = _radii(samples, nearest_k, origin)
    balls_around_sample = np.zeros(len(samples), dtype=np.int64)
    recalled = np.zeros(len(reference), dtype=bool)
    covered = np.zeros(len(reference), dtype=bool)
    for rows, distances in distance_blocks(reference, samples, origin):
        inside_reference = distances < reference_radii[rows, None]
        balls_around_sample += inside_reference.sum(axis=0)
        covered[rows] = inside_reference.any(axis=1)
        recalled[rows] = (distances < sample_radii).any(axis=1)
    return ManifoldScores(
        precision=float((balls_around_sample > 0).mean()),
        recall=float(recalled.mean()),
        density=float(balls_around_sample.mean() / nearest_k),
        coverage=float(covered.mean()),
    )


def _radii(features: np.ndarray, nearest_k: int, origin: np.ndarray) -> np.ndarray:
    """Return each point's distance to its ``nearest_k``-th other point, less a tie's width, [N]."""
    nearest = nearest_distances(features, features, nearest_k + 1, origin)
    radii: np.ndarray = nearest[:, nearest_k] * (1.0 - _TIE)
    return radii
