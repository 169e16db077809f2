"""What ``privacy.json`` holds: how well attacks on one arm went, and what arms are compared by."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from phoenix_pipeline.metrics.privacy.intervals import significant

# Whose model is attacked.
Kind = Literal["global_model", "client_models"]
# Of an ``AttackResult``, its fields; by attack; by client, or ``all``.
Attacks = dict[str, dict[str, dict[str, float]]]


class AuditConditions(TypedDict):
    """What was attacked, and how: ``privacy_audit`` is the group of settings."""

    weights: str
    weights_digest: str
    num_train: int
    num_held_out: int
    classes_matched: bool
    seed: int
    privacy_audit: dict[str, Any]


class Membership(TypedDict):
    """What was found out about the images of each model's own clients."""

    global_model: Attacks
    client_models: Attacks


class Reconstruction(TypedDict):
    """``seen``: what the attacker read. ``images``: likeness in dB and SSIM of each."""

    scores: dict[str, float]
    seen: str
    images: list[dict[str, Any]]


class ArmAudit(TypedDict):
    """``scores``: what arms are compared by. ``skipped``: the reason by what was not attacked.

    ``blind`` has the fields of an ``AttackResult``, ``copies`` those of ``Copies``.
    """

    conditions: AuditConditions
    scores: dict[str, float]
    membership: Membership
    blind: dict[str, float] | None
    copies: dict[str, Any] | None
    reconstruction: Reconstruction | None
    skipped: dict[str, str]


ARM_AUDIT = TypeAdapter(ArmAudit)


ALL = "all"
_OF_THE_AVERAGE = "final_average."
_PARTS = {
    "auc": "auc",
    "auc_low": "auc_low",
    "auc_high": "auc_high",
    "tpr": "tpr_at_1_percent_fpr",
    "tpr_low": "tpr_low",
    "tpr_high": "tpr_high",
}


def headline_scores(membership: Membership) -> dict[str, float]:
    """Return the scores of the models that the arm's samples come from.

    Where clients have models of their own and an averaged one was released as well, the scores of
    the latter are there too, under ``final_average.``, as in ``metrics.json``.
    """
    own, shared = membership["client_models"], membership["global_model"]
    if not own:
        return _scores(shared)
    averaged = {_OF_THE_AVERAGE + name: value for name, value in _scores(shared).items()}
    return {**_scores(own), **averaged}


def strongest_attack(attacks: Mapping[str, Mapping[str, float]]) -> str:
    """Return the name of the attack with the highest AUC."""
    return max(attacks, key=lambda name: attacks[name]["auc"])


def _scores(audited: Attacks) -> dict[str, float]:
    """Return AUC and TPR of the strongest attack and of each, and what clients stand out."""
    clients = {client: attacks for client, attacks in audited.items() if client != ALL}
    whole = audited.get(ALL) or next(iter(clients.values()), None)
    if whole is None:
        return {}
    strongest = whole[strongest_attack(whole)]
    scores = {f"membership_{name}": float(strongest[field]) for name, field in _PARTS.items()}
    for attack, result in whole.items():
        scores[f"membership_auc_{attack}"] = result["auc"]
        scores[f"membership_tpr_{attack}"] = result["tpr_at_1_percent_fpr"]
        worst = max((client[attack]["auc"] for client in clients.values()), default=result["auc"])
        scores[f"membership_auc_{attack}_worst_client"] = worst
    p_values = {
        (client, attack): result["auc_p_value"]
        for client, attacks in clients.items()
        for attack, result in attacks.items()
    }
    scores["clients_exposed"] = len({client for client, _ in significant(p_values)})
    scores["clients_attacked"] = len(clients)
    return scores
