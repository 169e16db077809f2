"""Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797).

Ours, because the ``prdc`` package prints, and holds every pair of distances at once (800 MB each
for 10,000 images); a test shows equal numbers on the same features.

Who lies in whose neighbourhood is found by products in float32, which take half the time. They are
off by a known amount, so that nearly all comparisons are sure; the few others are made again,
exactly.
"""

from collections.abc import Iterator
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

_BLOCK_VALUES = 8_000_000
_PAIRS = 4096
# Above this share of unsure pairs a product of the whole block is cheaper than differences.
_MANY = 0.02
_EQUAL = 1e-12
_ROUNDING = float(np.finfo(np.float32).eps)
# A sample that copies a real image lies at the very radius of those of which that one is the k-th
# neighbour, and is not inside: features of equal images differ by rounding alone.
_TIE = 1e-6


@dataclass(frozen=True)
class Points:
    """Features about one origin: float64 and float32 [N, D], and squared norms float64 [N]."""

    exact: np.ndarray
    single: np.ndarray
    squares: np.ndarray

    @classmethod
    def about(cls, origin: np.ndarray, features: np.ndarray) -> "Points":
        """Return ``features`` [N, D] moved by ``origin`` [D]: norms cost digits far from 0."""
        exact = features - origin
        return cls(exact, exact.astype(np.float32), np.einsum("ij,ij->i", exact, exact))


@dataclass(frozen=True)
class Block:
    """Squared distances float32 [B, M] of ``a`` [B] to ``b`` [M], each off by ``slack`` [B, 1]."""

    a: Points
    b: Points
    squared: np.ndarray
    slack: np.ndarray

    def below(self, limits: np.ndarray) -> np.ndarray:
        """Return where the exact squared distance is below float64 ``limits`` [B, 1] or [M]."""
        single = limits.astype(np.float32)
        inside: np.ndarray = self.squared < single
        i, j = np.nonzero(np.abs(self.squared - single) <= self.slack)
        inside[i, j] = self._exact(i, j) < np.broadcast_to(limits, inside.shape)[i, j]
        return inside

    def smallest(self, k: int) -> np.ndarray:
        """Return each row's exact squared distance of rank ``k``, from 0; float64 [B]."""
        around = np.partition(self.squared, k, axis=1)[:, [k]]
        surely_below = (self.squared < around - 2 * self.slack).sum(axis=1)
        i, j = np.nonzero(np.abs(self.squared - around) <= 2 * self.slack)
        values = self._exact(i, j)
        values = values[np.lexsort((values, i))]
        ranked: np.ndarray = values[np.searchsorted(i, np.arange(len(around))) + k - surely_below]
        return ranked

    def _exact(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        if len(i) > _MANY * self.squared.size:
            norms = self.a.squares[i] + self.b.squares[j]
            values = norms - 2.0 * (self.a.exact @ self.b.exact.T)[i, j]
            # What is left of equal points is rounding.
            return np.where(values > _EQUAL * norms, values, 0.0)
        squared = np.empty(len(i))
        for start in range(0, len(i), _PAIRS):
            part = slice(start, start + _PAIRS)
            difference = self.a.exact[i[part]] - self.b.exact[j[part]]
            squared[part] = np.einsum("ij,ij->i", difference, difference)
        return squared


def squared_distance_blocks(a: Points, b: Points) -> Iterator[tuple[slice, Block]]:
    """Yield (rows of ``a``, their squared distances to ``b``) in blocks that fit in memory."""
    # Of the coordinates, the limits and the sums 16 roundings; of a product one for each term, in
    # lanes of 16 or more.
    rounding = _ROUNDING * (16 + b.single.shape[1] / 16)
    largest = b.squares.max()
    height = max(1, _BLOCK_VALUES // len(b.squares))
    norms = b.squares.astype(np.float32)
    for start in range(0, len(a.squares), height):
        rows = slice(start, min(start + height, len(a.squares)))
        own = Points(a.exact[rows], a.single[rows], a.squares[rows])
        squared = own.single @ b.single.T
        squared *= -2.0
        squared += own.squares[:, None].astype(np.float32)
        squared += norms
        slack = (rounding * (own.squares + largest))[:, None].astype(np.float32)
        yield rows, Block(own, b, squared, slack)


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
    Raises SettingsError: a side has no ``nearest_k`` other images.
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
