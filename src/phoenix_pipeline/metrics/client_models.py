"""Samples of several clients' models: which of them are scored together, and each client alone."""

import numpy as np

from phoenix_pipeline.images import GLOBAL_MODEL, Samples
from phoenix_pipeline.metrics.arm_metrics import ClientScores
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor, extract_features
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.scores import Yardstick

FEWEST_FOR_A_DISTANCE = 64


def split_by_origin(client_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that an arm is judged by, and those of its final average, from ids [N].

    An arm whose clients have models of their own is judged by theirs; the rows of the global model
    are then the second part. Without such clients all rows are the first part.
    """
    personal = client_id != GLOBAL_MODEL
    if not personal.any():
        return np.arange(len(client_id)), np.empty(0, dtype=np.int64)
    return np.flatnonzero(personal), np.flatnonzero(~personal)


def samples_per_client(client_id: np.ndarray) -> dict[str, int]:
    """Return the number of samples of each client's own model, by client id."""
    ids, counts = np.unique(client_id[client_id != GLOBAL_MODEL], return_counts=True)
    return {str(client): int(count) for client, count in zip(ids, counts, strict=True)}


def score_clients(
    samples: Samples, pixels: FeatureExtractor, held: Yardstick
) -> dict[str, ClientScores]:
    """Return for each client its ``num_samples``, distance and ``class_shares``.

    Samples of the global model are left out. The distance, in the space of ``pixels``, is left out
    where a client has fewer than :data:`FEWEST_FOR_A_DISTANCE` samples, and the shares where there
    is no judge, or one that knows the commonest class alone. A distance to all classes is large
    for a client that rightly draws few of them.
    """
    scores: dict[str, ClientScores] = {}
    reference, judge = held.references[pixels.name].statistics, held.judge
    for client, count in samples_per_client(samples.client_id).items():
        own = samples.images.images[samples.client_id == int(client)]
        scores[client] = {"num_samples": count}
        if count >= FEWEST_FOR_A_DISTANCE:
            features = extract_features(pixels, own, held.config.batch_size)
            distance = frechet_distance(gaussian_statistics(features), reference)
            scores[client]["fid_pixels"] = distance
        if judge is not None and not judge.refusal:
            classes = judge.probabilities(own).argmax(axis=1)
            shares = np.bincount(classes, minlength=len(judge.class_names)) / count
            scores[client]["class_shares"] = shares.tolist()
    return scores
