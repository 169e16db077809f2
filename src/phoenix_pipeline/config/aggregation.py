"""Groups about what the server makes of a round's replies: rule, clipping, server optimizer."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Component, Group, Positive

_DEFAULT_RATES = {
    "fedavg": 1.0,
    "fedavgm": 1.0,
    "nesterov": 0.7,
    "fedadam": 0.1,
    "fedyogi": 0.01,
}
_RULES = ("mean", "median", "trimmed_mean", "krum", "multi_krum")
# A median of fewer is their mean.
FEWEST_FOR_A_MEDIAN = 3
# Medians of the last round, which `auto` clips beyond.
_CLIPPED_BEYOND = 2.0


class ClipNormConfig(Group):
    """Largest L2 norm of a client's update, which is its weights less the round's global ones."""

    bound: Annotated[float, Field(gt=0.0)] | Literal["auto"] | None = Field(
        "auto",
        description="Longer updates are scaled down to this norm, in `unit`; null: no clipping; "
        "`auto`: 2 in `last_median` for rule `mean`, which no honest update of the digits reaches. "
        "There is none for pooled data, `usplit`, central privacy, and strategies that send arrays "
        "of their own (`scaffold`).",
    )
    unit: Literal["absolute", "median", "last_median"] = Field(
        "absolute",
        description="`absolute`, or multiples of the `median` norm of the round's updates, for "
        "which the server holds all replies, or of that of the last round (`last_median`): it "
        "holds one reply at a time, but 16 in the first round, and allows for learning rates that "
        "have grown since. A client of more images than the median one's has as many times the "
        "bound.",
    )

    @property
    def is_asked_for(self) -> bool:
        """Whether somebody set a bound, which then has to go with everything else."""
        return self.bound not in (None, "auto")


class AggregationConfig(Group):
    """How the replies of a round become one model; all but `mean` hold every reply in memory.

    All but `mean` count each reply alike: a number of examples is only a client's word.
    """

    rule: Annotated[str, Component("aggregation_rules", _RULES)] = Field(
        "mean",
        description="`mean` by numbers of examples (FedAvg); `median` and `trimmed_mean` of every "
        "coordinate; `krum`: the reply that is closest to its neighbours; `multi_krum`: the mean "
        "of several such.",
    )
    trim_fraction: float = Field(
        0.2,
        gt=0.0,
        lt=0.5,
        description="`trimmed_mean`: share of the replies that is cut at either end, rounded down.",
    )
    num_byzantine: int = Field(
        1,
        ge=0,
        description="`krum`, `multi_krum`: bad replies to withstand, f; a round needs 2f + 3.",
    )
    num_selected: Positive | None = Field(
        None,
        description="`multi_krum`: replies that are averaged, of n at most n - f; null: n - f - 2.",
    )
    clip_norm: ClipNormConfig = ClipNormConfig()

    def settled_clip_norm(self, takes_whole_replies: bool) -> ClipNormConfig:
        """Return the clipping without `auto`, of a federation whose mean takes whole replies."""
        if self.clip_norm.bound != "auto":
            return self.clip_norm
        bound = _CLIPPED_BEYOND if takes_whole_replies and self.rule == "mean" else None
        return ClipNormConfig(bound=bound, unit="last_median")

    @property
    def required_replies(self) -> int:
        """The fewest usable replies of a round that the rule can do its work with.

        A rule of someone else refuses too few replies itself.
        """
        required = {
            "median": FEWEST_FOR_A_MEDIAN,
            # With fewer nothing is cut.
            "trimmed_mean": math.ceil(1.0 / self.trim_fraction - 1e-9),
            "krum": 2 * self.num_byzantine + 3,
            "multi_krum": max(
                2 * self.num_byzantine + 3, (self.num_selected or 0) + self.num_byzantine
            ),
        }.get(self.rule, 1)
        clips_by_median = self.clip_norm.is_asked_for and self.clip_norm.unit == "median"
        return max(required, FEWEST_FOR_A_MEDIAN if clips_by_median else 1)


class ServerOptimizerConfig(Group):
    """What the server does with the aggregate of a round (arXiv 1909.06335, 2003.00295)."""

    name: Annotated[str, Component("server_optimizers", tuple(_DEFAULT_RATES))] = Field(
        "fedavg",
        description="`fedavg`: the aggregate is the new model; the others take the step towards it "
        "as a gradient, with momentum or adaptively.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0.0,
        description="Server's step size; null: 1 for `fedavgm`, 0.7 for `nesterov` (DiLoCo), 0.1 "
        "for `fedadam`, 0.01 for `fedyogi`.",
    )
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="`fedavgm`, `nesterov`: momentum.")
    beta_1: float = Field(
        0.9, ge=0.0, lt=1.0, description="`fedadam`, `fedyogi`: decay of the first moment."
    )
    beta_2: float = Field(
        0.99, ge=0.0, lt=1.0, description="`fedadam`, `fedyogi`: decay of the second moment."
    )
    tau: float = Field(
        1e-3,
        gt=0.0,
        description="`fedadam`, `fedyogi`: adaptivity; added to the second moment's root.",
    )

    @model_validator(mode="after")
    def _has_no_unused_rate(self) -> Self:
        if self.name == "fedavg" and self.learning_rate not in (None, 1.0):
            raise ValueError(
                f"learning_rate is {self.learning_rate:g}, but name is fedavg, which has none; set "
                "name to fedavgm, nesterov, fedadam or fedyogi, or learning_rate to null"
            )
        return self

    @property
    def rate(self) -> float:
        """The step size that is used."""
        return self.learning_rate or _DEFAULT_RATES.get(self.name, 1.0)

    @property
    def is_plain(self) -> bool:
        """Whether the aggregate is the new model, as in FedAvg."""
        without_momentum = self.name in ("fedavgm", "nesterov") and self.momentum == 0.0
        return self.name == "fedavg" or (without_momentum and self.rate == 1.0)
