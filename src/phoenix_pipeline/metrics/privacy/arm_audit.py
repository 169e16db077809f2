"""What ``privacy.json`` holds: how well attacks on one arm went."""

from typing import Any, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

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
