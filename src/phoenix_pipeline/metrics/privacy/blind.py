"""The attack that needs no model: are training and held-out images alike at all?

Where a classifier of pixels tells them apart, so does any attack that merely sees how usual an
image is, and its success is no sign of membership (Das et al., arXiv 2406.16201).
"""

import numpy as np
import torch

from phoenix_pipeline.images import to_model_range
from phoenix_pipeline.metrics.metric import PRIVACY, Metric
from phoenix_pipeline.metrics.privacy.attack import (
    ATTACKS,
    FEWEST_IMAGES,
    AttackResult,
    judge_attack,
)

_FOLDS = 5
_SIDE = 16
_PENALTY = 10.0


def blind_attack(members: np.ndarray, held_out: np.ndarray, seed: int) -> AttackResult:
    """Return how well a linear classifier tells uint8 images [N, C, H, W] from others [M, C, H, W].

    Ridge regression on the pixels of images of at most 16 x 16; each image is judged by a
    classifier that it was not fitted to (five folds). For images of one source the AUC is somewhat
    below 0.5: what a fold has more of, the rest has less of.

    Raises:
        SettingsError: fewer than 8 of either.
    """
    # Its import takes a second.
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    truth = np.r_[np.ones(len(members)), np.zeros(len(held_out))]
    if min(len(members), len(held_out)) < FEWEST_IMAGES:
        return judge_attack(np.zeros(len(members)), np.zeros(len(held_out)))
    scores = cross_val_predict(
        RidgeClassifier(alpha=_PENALTY),
        np.concatenate([_small(members), _small(held_out)]),
        truth,
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
        method="decision_function",
    )
    return judge_attack(scores[truth == 1], scores[truth == 0])


def _small(images: np.ndarray) -> np.ndarray:
    """Return the pixels [N, D] of images of at most 16 x 16."""
    pixels = to_model_range(torch.from_numpy(np.ascontiguousarray(images)))
    side = min(_SIDE, pixels.shape[-1])
    reduced = torch.nn.functional.adaptive_avg_pool2d(pixels, side)
    return reduced.flatten(1).numpy()


SCORES = (
    Metric(
        "membership_auc_blind",
        "AUC",
        "how well training images are told from held-out ones without any model, by "
        "cross-validation; where it is above 0.5, attacks may find that and not membership",
        group=PRIVACY,
        space=ATTACKS["blind"],
    ),
)
