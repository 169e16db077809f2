"""Groups of the federated program: rounds, personal layers, threshold filter."""

from typing import Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Group, Positive


class LocalWorkConfig(Group):
    """How much each client trains in a round."""

    unit: Literal["epochs", "steps", "images_per_round"] = Field(
        "images_per_round",
        description="`epochs` over the client's images; `steps` per client; `images_per_round`: "
        "over all clients of the round, divided in proportion to what they hold.",
    )
    amount: float = Field(11520, gt=0.0, description="How many of these units.")


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
    num_nodes: Positive = Field(3, description="Nodes to wait for before round 1.")
    wait_for_nodes_s: float = Field(
        600.0, gt=0.0, description="Longest wait for these nodes, and for their first answer."
    )
    app_folder: str = Field(
        "deploy/flower-app", description="The Flower app that is submitted to the SuperLink."
    )


class FederationConfig(Group):
    """The federated program."""

    engine: Literal["in_process", "ray", "deployment"] = Field(
        "in_process",
        description="Where clients run: all in this process; in Ray actors; on nodes of their own.",
    )
    ray: RayConfig = RayConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    pooled: bool = Field(
        False, description="Pool all clients' data in one place: the centralized ceiling."
    )
    num_rounds: Positive = Field(12, description="Communication rounds.")
    local_work: LocalWorkConfig = LocalWorkConfig()
    client_fraction: float = Field(
        1.0, gt=0.0, le=1.0, description="Share of the connected clients that train in a round."
    )
    min_clients: Positive = Field(
        1, description="Fewest usable replies in a round, and fewest connected clients."
    )
    workers: Positive | None = Field(
        None,
        description="Clients trained at a time, one thread each; null: one per core. With `ray`: "
        "most actors; null: as many as fit.",
    )
    threads_per_client: Positive | None = Field(
        None,
        description="CPU threads that each of these uses; null: the cores divided among them. "
        "Small networks are faster with 1.",
    )
    resume: bool = Field(
        True,
        description="Continue from the newest checkpoint of the same settings; an unfinished run "
        "of other settings is an error. false: remove what is stored and start over.",
    )
    checkpoint_every: Positive = Field(1, description="Rounds between checkpoints.")
    round_timeout_s: float = Field(
        3600.0,
        gt=0.0,
        le=43_200.0,
        description="Longest wait for a round's replies; who is later is left out of the round. "
        "In process a thread that hangs cannot be ended: it is left behind.",
    )


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
        "`decoder`, `time_embedding`), a list of U-Net prefixes, or null for none.",
    )
    final_average: bool = Field(
        False, description="Upload personal layers once, at the end, to export one model as well."
    )
