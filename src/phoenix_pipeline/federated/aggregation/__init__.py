"""How the replies of a round, taken one by one, become new global weights: a rule of settings."""

from collections.abc import Callable, Mapping

from torch import Tensor

from phoenix_pipeline.config import AggregationConfig, FederationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.aggregation.clipping import ClippedUpdates
from phoenix_pipeline.federated.aggregation.means import PartialMean, WeightedMean, by_rows
from phoenix_pipeline.federated.aggregation.private_mean import PrivateMean, PrivateRound
from phoenix_pipeline.federated.aggregation.robust import RobustRule
from phoenix_pipeline.federated.aggregation.rule import Aggregation
from phoenix_pipeline.registry import Registry, look_up

# What makes the rule of one round, of its settings and the weights that the round started from.
BuildRule = Callable[[AggregationConfig, Mapping[str, Tensor]], Aggregation]
RULES = Registry[BuildRule](
    "aggregation_rules",
    {
        "mean": lambda config, template: by_rows(WeightedMean(template), template),
        **dict.fromkeys(RobustRule.NAMES, RobustRule),
    },
)

# Rules that hand a norm to the next round.
CLIPPING = (PrivateMean, ClippedUpdates)

# By the unit of the bound: replies that are held until their median is known; None: all. Those of
# `last_median` are a first round's: the later rounds take the median of the round before.
_MOST_HELD: dict[str, int | None] = {"absolute": 0, "median": None, "last_median": 16}

__all__ = [
    "CLIPPING",
    "RULES",
    "Aggregation",
    "PartialMean",
    "WeightedMean",
    "build_aggregation",
    "by_rows",
    "check_num_replies",
]


def build_aggregation(
    config: FederationConfig,
    template: Mapping[str, Tensor],
    seed: int,
    server_round: int,
    private: PrivateRound | None = None,
    last_norm: float | None = None,
    usual_weight: float | None = None,
    sends_more: bool = False,
) -> Aggregation:
    """Return the rule of round ``server_round``.

    ``template``: the global weights that the round started from. ``server_round``: from 1, counted
    over resumed runs. ``private``: bound and noise where the server keeps clients private; None
    elsewhere. ``last_norm``: what the clipping of the last round gave as ``next_clip_norm``.
    ``usual_weight``: the median of the clients' numbers of images, for bounds in medians.
    ``sends_more``: whether ``template`` has more than the model: what strategies send, whose
    lengths follow rules of their own, so that none is clipped unless a bound was set.
    """
    if private is not None:
        return PrivateMean(template, private)
    chosen = config.aggregation
    if config.compression.is_split:
        return by_rows(PartialMean(template), template)
    rule = look_up(RULES, chosen.rule, "federation.aggregation.rule")(chosen, template)
    clip_norm = config.clip_norm
    if clip_norm.bound is None or (sends_more and not chosen.clip_norm.is_asked_for):
        return rule
    bound = float(clip_norm.bound)
    most_held = look_up(_MOST_HELD, clip_norm.unit, "federation.aggregation.clip_norm.unit")
    if most_held == 0:
        return ClippedUpdates(rule, template, bound)
    if most_held is not None and last_norm is not None:
        return ClippedUpdates(rule, template, bound * last_norm, usual_weight)
    return ClippedUpdates(rule, template, bound, usual_weight, most_held)


def check_num_replies(config: FederationConfig, num_clients: int) -> None:
    """Raise SettingsError for a rule that needs more replies than ``num_clients`` can give."""
    required = config.aggregation.required_replies
    if num_clients < required:
        raise SettingsError(
            f"federation.aggregation.rule {config.aggregation.rule} needs {required} replies with "
            f"these settings, but {num_clients} clients train in a round; raise "
            "federation.client_fraction or partition.num_clients, or change federation.aggregation"
        )
