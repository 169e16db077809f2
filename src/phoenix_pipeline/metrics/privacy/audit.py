"""The audit of one network: who of its training images can be told, client by client."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from phoenix_pipeline.config import ModelConfig, PrivacyAuditConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.privacy.attack import AttackResult, judge_attack, match_classes
from phoenix_pipeline.metrics.privacy.membership import membership_scores
from phoenix_pipeline.seeding import numpy_generator

ALL_CLIENTS = -1
AttackScores = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class MembershipAudit:
    """Results by client and attack, what they rest on, and why a client has none."""

    results: dict[int, dict[str, AttackResult]]
    scores: dict[int, dict[str, AttackScores]]
    skipped: dict[int, str]


def audit_membership(
    network: nn.Module,
    model: ModelConfig,
    train: ImageSet,
    clients: Mapping[int, np.ndarray],
    held_out: ImageSet,
    config: PrivacyAuditConfig,
    seed: int,
) -> MembershipAudit:
    """Attack ``network`` for the images of each client, and of all, against held-out ones.

    Held-out images are drawn in the shares of classes that the client holds, where there are
    labels: else the attack would find out classes, not images.

    ``network``: trained, on the device to use, with the settings ``model``. ``clients``: rows of
    ``train`` that each client trained on; nobody trained on ``held_out``. ``seed``: of the choice
    of images and of the noise.
    """
    rows = {
        client: _choose(np.unique(owned), config.max_members, seed, "audit_members", client)
        for client, owned in clients.items()
    }
    everyone = np.unique(np.concatenate(list(rows.values())))
    others = _choose(np.arange(held_out.num_images), config.max_held_out, seed, "audit_held_out")

    def scores_of(images: ImageSet, chosen: np.ndarray) -> dict[str, np.ndarray]:
        labels = None if images.labels is None else images.labels[chosen]
        return membership_scores(network, model, images.images[chosen], config, seed, labels)

    found, unseen = scores_of(train, everyone), scores_of(held_out, others)
    groups = {ALL_CLIENTS: everyone, **rows} if len(rows) > 1 else rows
    results, scores, skipped = {}, {}, {}
    for client, own in groups.items():
        a, b = _matched(train, own, held_out, others, seed, client)
        at = np.searchsorted(everyone, own)[a]
        pairs = {name: (found[name][at], unseen[name][b]) for name in found}
        try:
            results[client] = {name: judge_attack(*pair) for name, pair in pairs.items()}
            scores[client] = pairs
        except SettingsError as error:
            skipped[client] = str(error)
    return MembershipAudit(results, scores, skipped)


def judge_together(scores: Iterable[Mapping[str, AttackScores]]) -> dict[str, AttackResult]:
    """Return, by attack, the success over several models, each attacked for its own images.

    Models differ in the scores that they give: each model's are first put on the scale of its own
    held-out images. One of those is held against the others of them, so that it has no advantage
    over a member.

    ``scores``: of each model, by attack.
    """
    models = list(scores)
    return {
        attack: judge_attack(
            *map(np.concatenate, zip(*(_scaled(*model[attack]) for model in models), strict=True))
        )
        for attack in (models[0] if models else ())
    }


def _scaled(members: np.ndarray, held_out: np.ndarray) -> AttackScores:
    """Return scores in standard deviations of (other) held-out ones from their mean."""
    m, mean = len(held_out), held_out.mean()
    centred = held_out - mean
    squares = np.square(centred)
    without = np.maximum(squares.sum() - squares * m / (m - 1), 0.0)
    smallest = np.finfo(float).tiny
    return (
        (members - mean) / max(float(held_out.std(ddof=1)), smallest),
        centred * m / (m - 1) / np.maximum(np.sqrt(without / (m - 2)), smallest),
    )


def _choose(rows: np.ndarray, most: int, seed: int, role: str, *numbers: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    generator = numpy_generator(seed, role, *numbers)
    return np.sort(generator.choice(rows, size=most, replace=False))


def _matched(
    train: ImageSet,
    members: np.ndarray,
    held_out: ImageSet,
    others: np.ndarray,
    seed: int,
    client: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions in ``members`` and in ``others`` of images with equal shares of classes."""
    if train.labels is None or held_out.labels is None:
        return np.arange(len(members)), np.arange(len(others))
    generator = numpy_generator(seed, "audit_classes", client)
    return match_classes(train.labels[members], held_out.labels[others], generator)
