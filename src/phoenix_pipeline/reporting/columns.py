"""The columns of the comparison: what each means, sums over rounds, and columns made of others.

Scores are described beside the functions that measure them (``metrics.components``).
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from phoenix_pipeline.metrics.components import describe
from phoenix_pipeline.metrics.metric import COST, FIDELITY, Headline, Metric

# The last row of a comparison: no arm.
FLOOR_NAME = "real test images"
DEFAULT_ARM, CEILING_ARM = "fedavg", "centralized"
# A smaller gap, as a share of fedavg's distance, is what another seed may change.
_LEAST_GAP = 0.05
# Of `run_totals`, in the order of the table.
COSTS = (
    Metric("rounds", "Rounds", "communication rounds", group=COST, kind="count"),
    Metric("clients", "Clients", "data owners that took part", group=COST, kind="count"),
    Metric(
        "images_trained",
        "Images",
        "training examples seen by all clients in all rounds, repeats included",
        group=COST,
        kind="count",
        space="trained",
        headline=Headline(100, keep=11),
    ),
    Metric("bytes_up", "Sent", "bytes from clients to the server", "lower", COST, "bytes"),
    Metric("bytes_down", "Received", "bytes from server to clients", "lower", COST, "bytes"),
    Metric(
        "bytes_total",
        "Traffic",
        "bytes sent and received by all clients in all rounds, without images that were pooled "
        "or shared",
        "lower",
        COST,
        "bytes",
        headline=Headline(110, keep=10),
    ),
    Metric("bytes_per_round", "Traffic", "the same, by round", "lower", COST, "bytes", "per round"),
    Metric(
        "train_seconds",
        "Training",
        "seconds of local training, summed over clients",
        "lower",
        COST,
        "seconds",
    ),
    Metric(
        "images_per_second",
        "Images",
        "training examples per second of local training",
        "higher",
        COST,
        "count",
        "per second",
    ),
    Metric(
        "epsilon",
        "Epsilon",
        "differential privacy after the last round, of the client with the largest; delta and what "
        "it covers are said under what left the clients",
        "lower",
        COST,
    ),
    Metric(
        "link_seconds",
        "Time",
        "what the traffic takes on the simulated link (`federation.link`): each round as long as "
        "its slowest client, training not counted",
        "lower",
        COST,
        "seconds",
        "on the link",
        headline=Headline(120, keep=9),
    ),
)
# Of how the scores were made, in the order of the table.
CONDITIONS = (
    Metric("reference_split", "Split", "where those came from", kind="text"),
    Metric("num_samples", "Samples", "samples that were scored", kind="count"),
    Metric("num_clients", "Models", "clients whose models were sampled", kind="count"),
    Metric("num_reference", "References", "real images held against", kind="count"),
    Metric("sampler", "Sampler", "how the samples were drawn", kind="text"),
    Metric("num_steps", "Steps", "network evaluations per sample", kind="count"),
    Metric("timestep_spacing", "Spacing", "timesteps that were visited", kind="text"),
    Metric("weights", "Weights", "weights that were sampled", kind="text"),
    Metric("seed", "Seed", "seed of the samples", kind="text"),
)
# Text: the settings that an arm was made with and that are others today.
OTHER_SETTINGS = Metric(
    "other_settings",
    "Settings",
    "settings that the arm was made with and that this command has otherwise",
    kind="text",
    space="not today's",
)
RUN_METRICS = (
    Metric("arm", "Arm", "what was run", group="", kind="text"),
    *COSTS,
    *CONDITIONS,
    OTHER_SETTINGS,
)
# These two are named by their beginnings; the space follows.
GAP_CLOSED = Metric(
    "gap_closed_",
    "Gap closed",
    "share of FID's distance from fedavg to centralized that an arm closes: 0 is as good as "
    "fedavg, 1 as good as training in one place; chance where that gap is small",
    "higher",
    FIDELITY,
    headline=Headline(10, keep=1),
    # Beyond, a share says that the gap is small or the features blind, not how good the arm is.
    credible=(-1.0, 1.5),
)
LEFT_OF_START = Metric(
    "left_of_start_",
    "Left of start",
    "FID after the last round over that of the given weights that round 1 began with, both of the "
    "few samples of the scores by round: below 1 the training added something",
    "lower",
    FIDELITY,
    headline=Headline(11, keep=1),
)


def describe_metric(name: str) -> Metric:
    """Return what is known about a column of the comparison; unknown names get no direction."""
    known = describe(name, (*RUN_METRICS, GAP_CLOSED, LEFT_OF_START))
    return known or Metric(name, name.replace("_", " "), "")


def run_totals(rounds: pd.DataFrame) -> dict[str, float]:
    """Sum one arm's ``rounds.parquet``: work, traffic (bytes) and training time (seconds).

    Rows before round 1 (a warm-up) count as work, not as rounds. On a simulated link a round lasts
    as long as its slowest client's. A sum over nothing but missing values is left out.
    """
    communicated = rounds[rounds["round"] > 0]
    num_rounds = int(communicated["round"].nunique())
    sums = {
        name: rounds[column].sum(min_count=1)
        for name, column in (
            ("images_trained", "images_trained"),
            ("bytes_up", "bytes_up"),
            ("bytes_down", "bytes_down"),
            ("train_seconds", "seconds"),
        )
    }
    totals = {"rounds": num_rounds, "clients": int(communicated["client_id"].nunique()), **sums}
    totals["bytes_total"] = sums["bytes_up"] + sums["bytes_down"]
    if num_rounds:
        totals["bytes_per_round"] = totals["bytes_total"] / num_rounds
    if "epsilon" in rounds:
        totals["epsilon"] = rounds["epsilon"].max()
    if "link_seconds" in rounds:
        slowest = communicated.groupby("round")["link_seconds"].max()
        totals["link_seconds"] = slowest.sum(min_count=1)
    if sums["train_seconds"] > 0:
        totals["images_per_second"] = sums["images_trained"] / sums["train_seconds"]
    return finite(totals)


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers."""
    return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}


def doubtful_shares(table: pd.DataFrame) -> list[str]:
    """Return each share outside of what is credible, such as ``dcgan -9.6 in pixels``."""
    low, high = GAP_CLOSED.credible or (-math.inf, math.inf)
    return [
        f"{arm} {share:.1f} in {describe_metric(name).space}"
        for name in table.columns
        if name.startswith(GAP_CLOSED.name)
        for arm, share in zip(table["arm"], table[name], strict=True)
        if pd.notna(share) and not low <= share <= high
    ]


def add_gap_closed(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with a column ``gap_closed_<space>`` for each ``fid_<space>``.

    (fedavg - arm) / (fedavg - centralized): 0 is as good as ``fedavg``, 1 as ``centralized``, below
    0 worse than ``fedavg``. It is missing for those two, which are 0 and 1 by definition, and for
    real images; there is no such column where ``fedavg`` is not worse than ``centralized`` by a
    twentieth of its distance, or either is missing. The columns stand in front of the costs.
    """
    arms = [str(arm) for arm in table["arm"]]
    if not {DEFAULT_ARM, CEILING_ARM} <= set(arms):
        return table
    result = table.copy()
    others = ~table["arm"].isin([DEFAULT_ARM, CEILING_ARM, FLOOR_NAME])
    for name in [column for column in table.columns if column.startswith("fid_")]:
        values = dict(zip(arms, table[name].astype("float64").tolist(), strict=True))
        default, gap = values[DEFAULT_ARM], values[DEFAULT_ARM] - values[CEILING_ARM]
        if gap > _LEAST_GAP * default:
            column = GAP_CLOSED.name + name.removeprefix("fid_")
            place = list(result.columns).index(COSTS[0].name)
            result.insert(place, column, ((default - table[name]) / gap).where(others))
    return result


def shares_left(by_round: pd.DataFrame) -> dict[str, float]:
    """Return, by feature space, the last kept round's distance over that of round 0.

    ``by_round``: what ``arms.score_rounds`` makes. Nothing where it has no round 0: the arm started
    from random weights.
    """
    if by_round.empty or int(by_round["round"].min()) != 0:
        return {}
    rows = by_round.sort_values("round")
    first, last = rows.iloc[0], rows.iloc[-1]
    spaces = [str(name) for name in by_round if str(name).startswith("fid_")]
    return {
        space.removeprefix("fid_"): float(last[space] / first[space])
        for space in spaces
        if first[space] > 0
    }


def add_start_shares(table: pd.DataFrame, by_round: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return ``table`` with a column ``left_of_start_<space>`` for each share, before the costs."""
    shares = {arm: shares_left(rows) for arm, rows in by_round.items()}
    result = table.copy()
    for space in dict.fromkeys(space for own in shares.values() for space in own):
        values = [shares.get(str(arm), {}).get(space) for arm in table["arm"]]
        place = list(result.columns).index(COSTS[0].name)
        result.insert(place, LEFT_OF_START.name + space, pd.Series(values, dtype="float64"))
    return result
