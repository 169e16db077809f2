"""How the replies of one round become new global weights: a rule, chosen by the settings.

Every rule takes replies one by one (``add``) and gives the weights of the model (``result``).
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from phoenix_pipeline.config import AggregationConfig, FederationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.aggregation.clipping import ClippedUpdates, MedianClippedUpdates
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
CLIPPING = (PrivateMean, ClippedUpdates, MedianClippedUpdates)

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
    clip = look_up(_CLIPPED, clip_norm.unit, "federation.aggregation.clip_norm.unit")
    return clip(rule, template, float(clip_norm.bound), last_norm, usual_weight)


def _clip_by_last_median(
    rule: Aggregation,
    template: Mapping[str, Tensor],
    multiple: float,
    last_norm: float | None,
    usual_weight: float | None,
) -> Aggregation:
    if last_norm is None:
        return MedianClippedUpdates(rule, template, multiple, usual_weight, _HELD_AT_FIRST)
    return ClippedUpdates(rule, template, multiple * last_norm, usual_weight)


# Replies of a first round whose median norm bounds the later ones of that round too.
_HELD_AT_FIRST = 16
# What clips the updates on their way into a rule, of the rule, the weights that the round started
# from, the bound, the last round's norm and the median client's weight.
_CLIPPED: dict[
    str,
    Callable[[Aggregation, Mapping[str, Tensor], float, float | None, float | None], Aggregation],
] = {
    "absolute": lambda rule, template, bound, *_: ClippedUpdates(rule, template, bound),
    "median": lambda rule, template, bound, _, usual: MedianClippedUpdates(
        rule, template, bound, usual
    ),
    "last_median": _clip_by_last_median,
}


def check_num_replies(config: FederationConfig, num_clients: int) -> None:
    """Refuse a rule that a round of ``num_clients`` cannot satisfy, even if all of them answer.

    Raises SettingsError: names the rule and what it needs.
    """
    required = config.aggregation.required_replies
    if num_clients < required:
        raise SettingsError(
            f"federation.aggregation.rule {config.aggregation.rule} needs {required} replies with "
            f"these settings, but {num_clients} clients train in a round; raise "
            "federation.client_fraction or partition.num_clients, or change federation.aggregation"
        )
