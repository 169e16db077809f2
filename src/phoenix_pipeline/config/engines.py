"""Blocks of the group ``federation`` that say where clients run, and when they are there."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from phoenix_pipeline.config.base import Group, Positive


def _in_order(rounds: str) -> str:
    """Refuse what is no list of spans, and a span that ends before it begins."""
    if not re.fullmatch(r"[1-9]\d*(-\d*)?(,[1-9]\d*(-\d*)?)*", rounds):
        raise ValueError(f"got {rounds!r}, must be rounds from 1 on, such as '3-' or '1-4,8-'")
    for part in rounds.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise ValueError(f"{part} ends before it begins")
    return rounds


# Rounds, such as "3-" or "1-4,8-".
Rounds = Annotated[str, AfterValidator(_in_order)]


class RayConfig(Group):
    """Engine `ray`: clients run in actors, one process each."""

    num_cpus_per_client: float = Field(
        1.0, gt=0.0, description="CPUs that one client takes; its threads are this, rounded down."
    )
    num_gpus_per_client: float = Field(
        0.0, ge=0.0, description="GPUs that one client takes, e.g. 0.25; 0: clients use the CPU."
    )
    address: str | None = Field(
        None,
        description="A running cluster (`auto`, `host:6379` or `ray://host:10001`), whose machines "
        "must see this project's data folder; null: started and stopped with the training.",
    )


class DeploymentConfig(Group):
    """Engine `deployment`: a SuperLink that runs already, and the nodes that are connected to it.

    Training settings go to the nodes; images, image counts and client ids come from the nodes.
    """

    address: str = Field("127.0.0.1:8000", description="The SuperLink, as host:port.")
    root_certificates: str | None = Field(
        None, description="PEM file of the authority that signed the SuperLink's certificate."
    )
    insecure: bool = Field(
        False, description="Plain text; without this it is allowed on loopback only."
    )
    num_nodes: Positive = Field(
        3, description="Nodes to wait for before round 1; others may join between rounds."
    )
    wait_for_nodes_s: float = Field(
        600.0,
        gt=0.0,
        description="Longest wait for these nodes, for `min_clients` of them before a later round, "
        "and for a SuperLink that is restarted.",
    )
    min_released: int = Field(
        1,
        ge=0,
        description="With personal layers: nodes that must release theirs (by "
        "`release-personal-layers=true`, their own setting) for the run to begin, since samples "
        "are drawn from their models; 0: train all the same, only the shared layers come back.",
    )
    sites: dict[int, int] = Field(
        default_factory=dict,
        description="Client id to the node id that `flwr supernode register` printed; no other "
        "node takes part. Empty: a client id belongs to the node that was first seen with it.",
    )
    max_count_ratio: float = Field(
        3.0,
        ge=1.0,
        description="How many times the median site's images a site counts for at most, in work "
        "and in means: a number of images is only a site's word.",
    )
    app_folder: str = Field(
        "deploy/flower-app", description="The Flower app that is submitted to the SuperLink."
    )
