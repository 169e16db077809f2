"""What a run cost: sums over its rounds, and what the columns of a run mean."""

import pandas as pd

from phoenix_pipeline.metrics.metric import COST, Headline, Metric
from phoenix_pipeline.reporting.formatting import finite

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
