"""Samples that are nearly training images, by pixels, against what held-out images show."""

from dataclasses import dataclass

import numpy as np

from phoenix_pipeline.metrics.memorization import (
    PERCENTILE,
    distance_blocks,
    memorization_baseline,
    memorized_share,
    nearest_ratios,
)
from phoenix_pipeline.metrics.metric import PRIVACY, Metric

SHOWN = 8


@dataclass(frozen=True)
class Copies:
    """How many samples are nearer to a training image than 99 % of held-out images are.

    ``share`` is to be compared with ``expected_share``, that of new images. ``nearest``: the most
    suspicious samples, as (sample, training image, ratio), rows of the two arrays; a ratio near 0
    is a copy.
    """

    share: float
    expected_share: float
    num_samples: int
    nearest: tuple[tuple[int, int, float], ...]


def find_copies(samples: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> Copies:
    """Return copies among features [N, D]; raises SettingsError below 50 and 100 images."""
    baseline = memorization_baseline(training, held_out)
    ratios = nearest_ratios(samples, training)
    suspects = np.argsort(ratios, kind="stable")[:SHOWN]
    nearest = np.empty(len(suspects), dtype=np.int64)
    for rows, distances in distance_blocks(samples[suspects], training):
        nearest[rows] = distances.argmin(axis=1)
    return Copies(
        share=memorized_share(samples, baseline),
        expected_share=PERCENTILE / 100,
        num_samples=len(samples),
        nearest=tuple(
            (int(i), int(j), float(ratios[i])) for i, j in zip(suspects, nearest, strict=True)
        ),
    )


SCORES = (
    Metric(
        "copied_share",
        "Copies",
        "share of samples nearer to a training image, by pixels, than 99 % of held-out images; "
        "0.01 is what unseen images get",
        "lower",
        PRIVACY,
    ),
)
