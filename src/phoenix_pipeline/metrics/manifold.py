"""Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797).

Ours, because the ``prdc`` package prints, and holds every pair of distances at once (800 MB each
for 10,000 images); a test shows equal numbers on the same features.
"""

from dataclasses import astuple, dataclass

import numpy as np

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.metric import (
    COVERAGE,
    FIDELITY,
    FeatureInputs,
    FeatureScores,
    Headline,
    Metric,
)
from phoenix_pipeline.metrics.neighbourhoods import Points, squared_distance_blocks

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
    real, drawn = Points.about(origin, reference), Points.about(origin, samples)
    reference_limits, sample_limits = _limits(real, nearest_k), _limits(drawn, nearest_k)
    balls_around_sample = np.zeros(len(samples), dtype=np.int64)
    recalled = np.zeros(len(reference), dtype=bool)
    covered = np.zeros(len(reference), dtype=bool)
    for rows, block in squared_distance_blocks(real, drawn):
        inside_reference = block.below(reference_limits[rows, None])
        balls_around_sample += inside_reference.sum(axis=0)
        covered[rows] = inside_reference.any(axis=1)
        recalled[rows] = block.below(sample_limits).any(axis=1)
    return ManifoldScores(
        precision=float((balls_around_sample > 0).mean()),
        recall=float(recalled.mean()),
        density=float(balls_around_sample.mean() / nearest_k),
        coverage=float(covered.mean()),
    )


def _limits(points: Points, nearest_k: int) -> np.ndarray:
    """Return each point's squared distance to its ``nearest_k``-th other one, less a tie, [N]."""
    blocks = [block.smallest(nearest_k) for _, block in squared_distance_blocks(points, points)]
    limits: np.ndarray = np.concatenate(blocks) * (1.0 - _TIE) ** 2
    return limits


def _measure(inputs: FeatureInputs) -> tuple[float, ...]:
    real, nearest_k = inputs.reference.compared_features, inputs.config.nearest_k
    return astuple(manifold_scores(inputs.features, real, nearest_k))


# In the order of the fields of ManifoldScores.
SCORES = (
    FeatureScores(
        (
            Metric(
                "precision_",
                "Precision",
                "share of samples that lie among real images; rises with blur, so never read it "
                "alone",
                "higher",
                FIDELITY,
                headline=Headline(30, keep=4),
            ),
            Metric(
                "recall_",
                "Recall",
                "share of real images that lie among the samples",
                "higher",
                COVERAGE,
                headline=Headline(40, keep=7),
            ),
            Metric(
                "density_",
                "Density",
                "how densely real images surround the samples; flatters blur, as precision does",
                "higher",
                FIDELITY,
            ),
            Metric(
                "coverage_",
                "Coverage",
                "share of real images that have a sample in their neighbourhood",
                "higher",
                COVERAGE,
                headline=Headline(50, keep=12),
            ),
        ),
        _measure,
    ),
)
