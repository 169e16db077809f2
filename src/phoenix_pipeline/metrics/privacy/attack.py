"""How well a score per image tells training images (members) from held-out ones.

The blind attack needs no model: are training and held-out images alike at all? Where a classifier
of pixels tells them apart, so does any attack that merely sees how usual an image is, and its
success is no sign of membership (Das et al., arXiv 2406.16201).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import to_model_range
from phoenix_pipeline.metrics.metric import PRIVACY, Metric
from phoenix_pipeline.metrics.privacy.intervals import (
    FALSE_POSITIVE_RATE,
    auc_interval,
    tpr_interval,
)

FEWEST_IMAGES = 8
_FOLDS = 5
_SIDE = 16
_PENALTY = 10.0


@dataclass(frozen=True)
class AttackResult:
    """Success of one attack; ``low`` and ``high`` are the ends of 95 % intervals.

    ``auc``: the probability that a member has a higher score than a held-out image; 0.5 is no
    leak. ``auc_standard_error``: the spread of ``auc`` where there is no leak.
    ``tpr_at_1_percent_fpr``: the share of members found while at most 1 % of held-out images are
    taken for members; about 0.01 is no leak. With fewer than 100 held-out images none may be.
    ``auc_p_value``, ``tpr_p_value``: how likely as much is where there is no leak.
    """

    auc: float
    auc_low: float
    auc_high: float
    auc_standard_error: float
    auc_p_value: float
    tpr_at_1_percent_fpr: float
    tpr_low: float
    tpr_high: float
    tpr_p_value: float
    num_members: int
    num_held_out: int


def judge_attack(members: np.ndarray, held_out: np.ndarray) -> AttackResult:
    """Return the success of scores [N] of members and [M] of held-out images, high for members.

    The AUC is Mann and Whitney's U / (N M), ties counting half; its standard error without a leak
    is sqrt((N + M + 1) / (12 N M)). The p-values are Mann and Whitney's, one-sided, and that of the
    number of members above the held-out image at the threshold, which is negative hypergeometric
    where members and held-out images are alike.
    Raises SettingsError: fewer than 8 of either, or a score that is not finite.
    """
    # Half a second of imports, which commands that audit nothing do without.
    from scipy.stats import mannwhitneyu, nhypergeom, rankdata

    for scores, name in ((members, "training"), (held_out, "held-out")):
        if len(scores) < FEWEST_IMAGES or not np.isfinite(scores).all():
            raise SettingsError(
                f"the membership attack got {np.isfinite(scores).sum()} finite scores of "
                f"{len(scores)} {name} images; allowed are {FEWEST_IMAGES} or more, all finite"
            )
    n, m = len(members), len(held_out)
    ranks = rankdata(np.concatenate([members, held_out]))
    auc = float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
    allowed = int(FALSE_POSITIVE_RATE * m)
    found = int((members > np.sort(held_out)[m - 1 - allowed]).sum())
    auc_low, auc_high = auc_interval(auc, n, m)
    # The same draws for every attack: its interval does not depend on which others were made.
    tpr_low, tpr_high = tpr_interval(members, held_out, np.random.default_rng(0))
    return AttackResult(
        auc=auc,
        auc_low=auc_low,
        auc_high=auc_high,
        auc_standard_error=math.sqrt((n + m + 1) / (12 * n * m)),
        auc_p_value=float(mannwhitneyu(members, held_out, alternative="greater").pvalue),
        tpr_at_1_percent_fpr=found / n,
        tpr_low=tpr_low,
        tpr_high=tpr_high,
        tpr_p_value=float(nhypergeom.sf(found - 1, n + m, n, allowed + 1)) if found else 1.0,
        num_members=n,
        num_held_out=m,
    )


def match_classes(
    members: np.ndarray, held_out: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of members and of held-out images whose classes have the same shares.

    Members of two classes against held-out images of ten would show which classes a client has,
    not which images. As many images as possible are kept: all members whose class is held out as
    well, and of the held-out images what the scarcest class allows.

    Args:
        members: labels [N].
        held_out: labels [M].
        generator: chooses the held-out images.
    """
    rows = np.flatnonzero(np.isin(members, held_out))
    classes, wanted = np.unique(members[rows], return_counts=True)
    if not len(classes):
        return rows, np.empty(0, dtype=np.int64)
    available = np.array([(held_out == label).sum() for label in classes])
    ratio = (available / wanted).min()
    chosen = [
        generator.choice(np.flatnonzero(held_out == label), round(ratio * count), replace=False)
        for label, count in zip(classes, wanted, strict=True)
    ]
    return rows, np.sort(np.concatenate(chosen))


def blind_attack(members: np.ndarray, held_out: np.ndarray, seed: int) -> AttackResult:
    """Return how well a linear classifier tells uint8 images [N, C, H, W] from others [M, C, H, W].

    Ridge regression on the pixels of images of at most 16 x 16; each image is judged by a
    classifier that it was not fitted to (five folds). For images of one source the AUC is somewhat
    below 0.5: what a fold has more of, the rest has less of.
    Raises SettingsError: fewer than 8 of either.
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


ATTACKS = {
    "loss": "loss",
    "pia": "PIA",
    "secmi": "SecMI",
    "discriminator": "discriminator",
    "blind": "no model",
}


def attack_label(rest: str) -> str:
    """Return what the attack of a column is called, by the rest of its name after ``auc``."""
    worst = rest.endswith("_worst_client")
    name = rest.removesuffix("_worst_client").removeprefix("_")
    label = ATTACKS.get(name, name)
    return f"{label}, worst client" if worst else label


_END = "of the 95 % interval of the"
SCORES = (
    Metric(
        "membership_auc",
        "AUC",
        "probability that the strongest membership attack finds a training image more familiar "
        "to the model than a held-out one; 0.5 is no leak",
        "lower",
        PRIVACY,
        variant=attack_label,
    ),
    Metric("membership_auc_low", "AUC from", f"lower end {_END} AUC", group=PRIVACY),
    Metric("membership_auc_high", "AUC to", f"upper end {_END} AUC", group=PRIVACY),
    Metric(
        "membership_tpr",
        "TPR at 1 %",
        "share of training images that this attack finds while it takes 1 % of held-out images "
        "for training images; 0.01 is no leak",
        "lower",
        PRIVACY,
        variant=attack_label,
    ),
    Metric("membership_tpr_low", "TPR from", f"lower end {_END} TPR", group=PRIVACY),
    Metric("membership_tpr_high", "TPR to", f"upper end {_END} TPR", group=PRIVACY),
    Metric(
        "clients_exposed",
        "Exposed",
        "clients whose training images are told from held-out ones beyond chance: 5 % risk of a "
        "false alarm over all clients and attacks together (Holm)",
        "lower",
        PRIVACY,
    ),
    Metric("clients_attacked", "Attacked", "clients whose images were looked for", group=PRIVACY),
    Metric(
        "membership_auc_blind",
        "AUC",
        "how well training images are told from held-out ones without any model, by "
        "cross-validation; where it is above 0.5, attacks may find that and not membership",
        group=PRIVACY,
        space=ATTACKS["blind"],
    ),
)
