"""The group of the federated program."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from phoenix_pipeline.config.aggregation import (
    AggregationConfig,
    ClipNormConfig,
    ServerOptimizerConfig,
)
from phoenix_pipeline.config.base import Group, Positive
from phoenix_pipeline.config.compression import CompressionConfig, LinkConfig
from phoenix_pipeline.config.differential_privacy import DifferentialPrivacyConfig
from phoenix_pipeline.config.rounds import (
    DeploymentConfig,
    LocalWorkConfig,
    RayConfig,
    Rounds,
    SnapshotsConfig,
)


class FederationConfig(Group):
    """The federated program."""

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = (
        "threads_per_client",
        "num_rounds",
        "checkpoint_every",
    )

    engine: Literal["in_process", "ray", "deployment"] = Field(
        "in_process",
        description="Where clients run: all in this process; in Ray actors; on nodes of their own.",
    )
    ray: RayConfig = RayConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    pooled: bool = Field(
        False, description="Pool all clients' data in one place: the centralized ceiling."
    )
    num_rounds: Positive = Field(
        12,
        description="Communication rounds; `auto`: by image size, more with `alignment` and with "
        "fewer clients in a round.",
    )
    local_work: LocalWorkConfig = LocalWorkConfig()
    budget: float = Field(
        1.0,
        gt=0.0,
        description="Share of the rounds and of the images that `auto` stands for, in `num_rounds` "
        "and `local_work.amount`; 0.1: a first look. Other than 1 it needs one of them `auto`.",
    )
    attendance: dict[int, Rounds] = Field(
        default_factory=dict,
        description="Simulated attendance: client id to the rounds in which it is there, such as "
        "`{2: 3-}` (joins in round 3) or `{4: '1-4,8-'}` (away in 5 to 7); the others always are.",
    )
    client_fraction: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Share of the connected clients that train in a round. They take turns: each "
        "trains once, in an order drawn anew each time, before any trains again.",
    )
    min_clients_per_round: Positive = Field(
        1,
        description="Clients that train in a round at least, if as many are connected, whatever "
        "`client_fraction` says; not with central differential privacy, which draws by chance.",
    )
    differential_privacy: DifferentialPrivacyConfig = DifferentialPrivacyConfig()
    secret_noise: bool | None = Field(
        None,
        description="Draw the random numbers that privacy rests on from a cryptographic generator "
        "instead of the run's seed, which every client knows; null: on the engine `deployment`.",
    )
    aggregation: AggregationConfig = AggregationConfig()
    server_optimizer: ServerOptimizerConfig = ServerOptimizerConfig()
    strategies: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="What is added to averaging: names of strategies and the settings of each, "
        "such as `{fedprox: {mu: 0.01}}` (below); null or `{}`: nothing.",
    )
    min_clients: Positive = Field(
        1, description="Fewest usable replies in a round, and fewest connected clients."
    )
    workers: Positive | None = Field(
        None,
        description="Clients trained at a time; null: one per core, and one on a GPU. With `ray`: "
        "most actors; null: as many as fit.",
    )
    threads_per_client: Positive | None = Field(
        None,
        description="CPU threads that each of these uses in process; null: the cores divided "
        "among them; `auto`: 1 up to 12 pixels, where more are slower, else null.",
    )
    stacked_clients: Positive | Literal["auto"] = Field(
        "auto",
        description="In process: clients whose weights are stacked and trained as one program. "
        "`auto`: as many as a worker has where that is faster and memory allows, and a line in the "
        "log says how many; 1: one after another, with the bits of the other engines.",
    )
    resume: bool = Field(
        True,
        description="Continue from the newest checkpoint of the same settings; an unfinished run "
        "of other settings is an error. false: remove what is stored and start over.",
    )
    checkpoint_every: Positive = Field(
        1,
        description="Rounds between checkpoints; `auto`: 10 up to 12 pixels, whose rounds take a "
        "second, else 1, and 1 with secret noise.",
    )
    snapshots: SnapshotsConfig = SnapshotsConfig()
    round_timeout_s: float = Field(
        3600.0,
        gt=0.0,
        le=43_200.0,
        description="Longest wait for a round's replies; who is later is left out of the round. "
        "In process a thread that hangs cannot be ended: it is left behind.",
    )
    compression: CompressionConfig = CompressionConfig()
    link: LinkConfig = LinkConfig()

    @field_validator("strategies", mode="before")
    @classmethod
    def _none_are_no_strategies(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given or {}
        return {name: settings or {} for name, settings in given.items()}

    @model_validator(mode="after")
    def _has_strategies_for_clients(self) -> Self:
        if self.pooled and self.strategies:
            raise ValueError(
                f"strategies are {', '.join(self.strategies)}, but pooled puts all data in one "
                "place, where there is nothing to federate; set federation.strategies: null"
            )
        return self

    @model_validator(mode="after")
    def _averages_halves(self) -> Self:
        clipped = self.aggregation.clip_norm.is_asked_for or self.differential_privacy.enabled
        if self.compression.is_split and (self.aggregation.rule != "mean" or clipped):
            raise ValueError(
                "partial update usplit averages each array over those who sent it, but rule "
                f"{self.aggregation.rule}, clip_norm and differential_privacy need whole replies; "
                "set federation.aggregation.rule: mean, federation.aggregation.clip_norm.bound: "
                "null and federation.differential_privacy.enabled: false, or "
                "federation.compression.partial_update: full"
            )
        return self

    @property
    def clip_norm(self) -> ClipNormConfig:
        """The clipping of each round: what was set, or what `auto` stands for here."""
        private = self.differential_privacy.is_central
        whole = not (self.pooled or self.compression.is_split or private)
        return self.aggregation.settled_clip_norm(whole)

    @property
    def waits_for_released_layers(self) -> bool:
        """Whether nodes must hand out their personal layers, where they have any."""
        return self.engine == "deployment" and self.deployment.min_released > 0

    def is_of_checkpoint(self, server_round: int) -> bool:
        """Return whether the server writes a checkpoint after ``server_round`` (from 1)."""
        return server_round % self.checkpoint_every == 0 or server_round == self.num_rounds

    @property
    def has_secret_noise(self) -> bool:
        """Whether private noise does not follow the run's seed."""
        if self.secret_noise is None:
            return self.engine == "deployment"
        return self.secret_noise

    @model_validator(mode="after")
    def _privacy_holds(self) -> Self:
        privacy = self.differential_privacy
        if privacy.enabled and self.pooled:
            raise ValueError(
                "differential_privacy hides which client took part, but pooled has one client with "
                "all data; set federation.differential_privacy.enabled or federation.pooled to "
                "false, or use training.dp_sgd"
            )
        combined = self.aggregation.rule != "mean" or self.aggregation.clip_norm.is_asked_for
        if privacy.is_central and combined:
            raise ValueError(
                "differential_privacy with placement central is an aggregation of its own, which "
                "clips and averages with equal weights; set federation.aggregation.rule to mean "
                "and federation.aggregation.clip_norm.bound to null, or "
                "federation.differential_privacy.placement to local"
            )
        if privacy.enabled and self.local_work.unit == "images_per_round":
            raise ValueError(
                "differential_privacy needs federation.local_work.unit steps or epochs: with "
                "images_per_round the work of a client, and so its update, depends on who else "
                "takes part"
            )
        return self

    @model_validator(mode="after")
    def _attends_in_simulations(self) -> Self:
        if self.attendance and self.engine == "deployment":
            raise ValueError(
                "attendance is simulated with engine in_process or ray; nodes of a deployment come "
                "and go by themselves: set federation.attendance: {}"
            )
        return self
