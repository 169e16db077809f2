"""What the columns about work, traffic and conditions, and those of text, mean.

Scores are in ``vocabulary``.
"""

from phoenix_pipeline.reporting.metric import COST, COVERAGE, OTHER, Metric
from phoenix_pipeline.reporting.privacy_vocabulary import PRIVACY

RUN_COLUMNS: tuple[Metric, ...] = (
    Metric("arm", "Arm", "", None, "", "what was run", "text"),
    Metric("rounds", "Rounds", "", None, COST, "communication rounds", "count"),
    Metric("clients", "Clients", "", None, COST, "data owners that took part", "count"),
    Metric(
        "images_trained",
        "Images",
        "trained",
        None,
        COST,
        "training examples seen by all clients in all rounds, repeats included",
        "count",
    ),
    Metric("bytes_up", "Sent", "", "lower", COST, "bytes from clients to the server", "bytes"),
    Metric("bytes_down", "Received", "", "lower", COST, "bytes from server to clients", "bytes"),
    Metric(
        "bytes_total",
        "Traffic",
        "",
        "lower",
        COST,
        "bytes sent and received by all clients in all rounds, without images that were pooled "
        "or shared",
        "bytes",
    ),
    Metric("bytes_per_round", "Traffic", "per round", "lower", COST, "the same, by round", "bytes"),
    Metric(
        "train_seconds",
        "Training",
        "",
        "lower",
        COST,
        "seconds of local training, summed over clients",
        "seconds",
    ),
    Metric(
        "images_per_second",
        "Images",
        "per second",
        "higher",
        COST,
        "training examples per second of local training",
        "count",
    ),
    Metric(
        "epsilon",
        "Epsilon",
        "",
        "lower",
        COST,
        "differential privacy after the last round, of the client with the largest; delta and what "
        "it covers are said under what left the clients",
    ),
    Metric(
        "link_seconds",
        "Time",
        "on the link",
        "lower",
        COST,
        "what the traffic takes on the simulated link (`federation.link`): each round as long as "
        "its slowest client, training not counted",
        "seconds",
    ),
    Metric(
        "classifier_test_accuracy",
        "Judge",
        "",
        None,
        COVERAGE,
        "accuracy of the label classifier on real test images",
    ),
    Metric(
        "classifier_majority_share",
        "Majority",
        "",
        None,
        COVERAGE,
        "share of real test images that are of the commonest class: what the label classifier has "
        "to exceed",
    ),
    Metric("num_samples", "Samples", "", None, OTHER, "samples that were scored", "count"),
    Metric("num_clients", "Models", "", None, OTHER, "clients whose models were sampled", "count"),
    Metric("num_reference", "References", "", None, OTHER, "real images held against", "count"),
    Metric("reference_split", "Split", "", None, OTHER, "where those came from", "text"),
    Metric("sampler", "Sampler", "", None, OTHER, "how the samples were drawn", "text"),
    Metric("num_steps", "Steps", "", None, OTHER, "network evaluations per sample", "count"),
    Metric("timestep_spacing", "Spacing", "", None, OTHER, "timesteps that were visited", "text"),
    Metric("weights", "Weights", "", None, OTHER, "weights that were sampled", "text"),
    Metric("seed", "Seed", "", None, OTHER, "seed of the samples", "text"),
    Metric(
        "other_settings",
        "Settings",
        "not today's",
        None,
        OTHER,
        "settings that the arm was made with and that this command has otherwise",
        "text",
    ),
    Metric(
        "reconstruction_seen",
        "Read",
        "",
        None,
        PRIVACY,
        "what the attacker read of a client's update",
        "text",
    ),
)
