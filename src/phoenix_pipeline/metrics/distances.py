"""Euclidean distances between two sets of features, in blocks that fit in memory."""

from collections.abc import Iterator

import numpy as np

_BLOCK_VALUES = 8_000_000


def distance_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows of ``a``, float64 distances [rows, len(b)]) for ``a`` [N, D], ``b`` [M, D].

    Both are first moved by the mean of ``b``: |x|^2 + |y|^2 - 2 x.y loses digits far from 0.
    """
    origin = b.mean(axis=0, dtype=np.float64)
    targets = b - origin
    target_norms = np.einsum("ij,ij->i", targets, targets)
    height = max(1, _BLOCK_VALUES // len(b))
    for start in range(0, len(a), height):
        rows = slice(start, min(start + height, len(a)))
        queries = a[rows] - origin
        squared = queries @ targets.T
        squared *= -2.0
        squared += np.einsum("ij,ij->i", queries, queries)[:, None]
        squared += target_norms
        np.maximum(squared, 0.0, out=squared)
        yield rows, np.sqrt(squared, out=squared)


def nearest_distances(queries: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return the ``k`` smallest distances [N, k] of each query to the targets, ascending."""
    nearest = np.empty((len(queries), k))
    for rows, distances in distance_blocks(queries, targets):
        smallest = np.partition(distances, k - 1, axis=1)[:, :k] if k < len(targets) else distances
        nearest[rows] = np.sort(smallest, axis=1)[:, :k]
    return nearest
