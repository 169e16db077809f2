"""Whether samples are copies of training images.

A plain distance to the nearest training image is small for any blurred or grey image. Divided by
the mean distance to the 50 nearest it is small only where one training image is much nearer than
its neighbours. The same ratio of held-out images says what is usual.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.metric import COPIES, FeatureInputs, FeatureScores, Headline, Metric

NEIGHBOURS = 50
PERCENTILE = 1.0
SMALLEST_HELD_OUT = 100
_BLOCK_VALUES = 8_000_000


@dataclass(frozen=True)
class MemorizationBaseline:
    """Training features [N, D] and the sorted ratios [M] of held-out images to them."""

    training_features: np.ndarray
    held_out_ratios: np.ndarray

    @property
    def threshold(self) -> float:
        """The 1st percentile of the held-out ratios."""
        return float(np.percentile(self.held_out_ratios, PERCENTILE))


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


def nearest_ratios(features: np.ndarray, training_features: np.ndarray) -> np.ndarray:
    """Return distance to the nearest
    mean of 50 nearest, 0..1, [N]; raises SettingsError.
    """
    if len(training_features) < NEIGHBOURS:
        raise SettingsError(
            f"Memorisation got {len(training_features)} training images; allowed is {NEIGHBOURS} "
            "or more"
        )
    nearest = nearest_distances(features, training_features, NEIGHBOURS)
    mean = nearest.mean(axis=1)
    # 50 training images equal to the sample: as much a copy as can be.
    return np.divide(nearest[:, 0], mean, out=np.zeros_like(mean), where=mean > 0)


def memorization_baseline(
    training_features: np.ndarray, held_out_features: np.ndarray
) -> MemorizationBaseline:
    """Return what samples are held against; raises SettingsError below 50 and 100 images."""
    if len(held_out_features) < SMALLEST_HELD_OUT:
        raise SettingsError(
            f"Memorisation got {len(held_out_features)} held-out images; allowed is "
            f"{SMALLEST_HELD_OUT} or more, for a 1st percentile"
        )
    ratios = nearest_ratios(held_out_features, training_features)
    return MemorizationBaseline(training_features, np.sort(ratios))


def memorized_share(features: np.ndarray, baseline: MemorizationBaseline) -> float:
    """Return the share of [N, D] below held-out images' 1st percentile: about 0.01 if as new."""
    ratios = nearest_ratios(features, baseline.training_features)
    return float((ratios < baseline.threshold).mean())


def _measure(inputs: FeatureInputs) -> tuple[float]:
    baseline = inputs.reference.memorization
    if baseline is None:
        raise SettingsError(inputs.reference.memorization_skipped)
    return (memorized_share(inputs.features, baseline),)


_PHRASE = (
    "share of samples that lie closer to a training image than 99 % of held-out images do; "
    "0.01 is what unseen images get"
)
SCORES = (
    FeatureScores(
        (Metric("memorized_share_", "Copies", _PHRASE, "lower", COPIES),),
        _measure,
        not_of_real_images="held-out real images are what samples are held against",
        largest=Metric(
            "memorized_share",
            "Copies",
            _PHRASE,
            "lower",
            COPIES,
            headline=Headline(90, keep=0),
        ),
    ),
)
