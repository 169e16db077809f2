"""Who lies in whose neighbourhood: products in float32, and in float64 where rounding would decide.

A product of matrices in float32 takes half the time. It is off by a known amount, so that nearly
all comparisons are sure; the few others are made again, exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK_VALUES = 8_000_000
_PAIRS = 4096
# Above this share of unsure pairs a product of the whole block is cheaper than differences.
_MANY = 0.02
_EQUAL = 1e-12
_ROUNDING = float(np.finfo(np.float32).eps)


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
        """Return the squared distances of the pairs (``i``, ``j``)."""
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
