"""Blocks about rounds: how much clients train, who is disconnected, and where they run."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from phoenix_pipeline.config.base import Group, Positive


def _in_order(rounds: str) -> str:
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


class LocalWorkConfig(Group):
    """How much each client trains in a round."""

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = ("amount",)

    unit: Literal["epochs", "steps", "images_per_round"] = Field(
        "images_per_round",
        description="`epochs` over the client's images; `steps` per client; `images_per_round`: "
        "over all clients of the round, divided in proportion to what they hold.",
    )
    amount: float = Field(
        11520,
        gt=0.0,
        description="How many of these units; `auto`: images by their size, so that all rounds "
        "together train on as many as docs/own-data.md lists, however many rounds there are.",
    )


class SnapshotsConfig(Group):
    """Averaged weights of the global model by round, from which the report draws scores by round.

    Training only writes them; ``evaluation`` draws and scores afterwards. An arm whose clients have
    models of their own keeps none, as the server never has these.
    """

    every: int = Field(
        0,
        ge=0,
        description="Keep the averaged weights after every n-th round and the last; 0: never.",
    )
    images: Positive = Field(500, description="Images that are drawn from each of them and scored.")


class ThresholdFilterConfig(Group):
    """Threshold Filtering: disconnect clients whose own samples score badly.

    The check rides on the training message: after its local training a client draws images from its
    own model, and only their score travels with its reply. Scores are about 1 for real images.
    """

    enabled: bool = Field(False, description="Switch the filter on.")
    monitor_every: Positive = Field(
        2, description="Rounds between checks; those clients that train in such a round are judged."
    )
    monitor_samples: int = Field(
        64, ge=16, le=4096, description="Images that a client makes per check."
    )
    monitor_steps: Positive = Field(10, description="Sampler steps per image of a check.")
    absolute_threshold: float | None = Field(
        None,
        gt=1.0,
        description="Largest allowed score; real images score about 1; null: only the relative "
        "rule.",
    )
    relative_threshold: float | None = Field(
        5.0,
        gt=0.0,
        description="Largest allowed score in robust deviations (1.4826 x MAD) above the median "
        "of all clients, which needs three scores; null: only the absolute rule.",
    )
    min_spread: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="Least robust deviation, as a fraction of the median: clients that score "
        "nearly alike are not parted by tiny differences.",
    )
    patience: Positive = Field(2, description="Consecutive bad checks before disconnection.")
    min_clients: Positive = Field(2, description="Clients that are never gone below.")

    @model_validator(mode="after")
    def _has_a_rule(self) -> Self:
        if self.enabled and self.absolute_threshold is None and self.relative_threshold is None:
            raise ValueError(
                "enabled needs absolute_threshold or relative_threshold; both are null"
            )
        return self


class PersonalLayersConfig(Group):
    """Personalization layers (after FedPer, arXiv 1912.00818)."""

    layers: str | tuple[str, ...] | None = Field(
        None,
        description="What stays on the client: a preset (`output`, `last_up_block`, "
        "`decoder`, `time_embedding`, `class_embedding`; with LoRA `adapters`), a list of U-Net "
        "prefixes, or null for none.",
    )
    final_average: bool = Field(
        False, description="Upload personal layers once, at the end, to export one model as well."
    )
