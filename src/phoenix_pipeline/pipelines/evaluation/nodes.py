"""Score an arm's samples against real images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.arms.references import load_yardstick, scored_with
from phoenix_pipeline.config import ArmSettings, EvaluationConfig, RunConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.families import find_family
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet, Samples, read_samples
from phoenix_pipeline.metrics.arm_metrics import (
    CONDITIONS,
    ArmMetrics,
    ClientScores,
    Conditions,
    Evaluated,
    Histogram,
)
from phoenix_pipeline.metrics.components import FINAL_AVERAGE
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor, extract_features
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.scores import Scores, Yardstick, score_samples
from phoenix_pipeline.pipelines.evaluation.utility import measure_utility
from phoenix_pipeline.progress import progress_bar

_CLIENTS_BY = "fid_pixels"
# Enough for a picture of a few samples of each class.
_JUDGED = 1000
_FEWEST_FOR_A_DISTANCE = 64


def evaluate(
    samples_file: Path,
    train: ImageSet,
    test: ImageSet,
    judge_folder: Path,
    reference_folder: Path,
    partition: pd.DataFrame,
    arm: ArmSettings,
    config: EvaluationConfig,
    run: RunConfig,
) -> tuple[ArmMetrics, pd.DataFrame]:
    """Return the arm's metrics with all that a reader needs beside them, and classes of samples.

    An arm with models at its clients is scored by their samples; those of its final average are
    scored as well, under names that begin with ``final_average.``. How the samples were drawn, and
    with which seed, their own file says, else it is a DataError. ``partition``: who holds which
    training image, which the sites of a deployment tell nobody.
    """
    samples = _read_drawn(samples_file)
    run = run.model_copy(update={"seed": samples.drawn["seed"]})
    held = load_yardstick(train, test, judge_folder, reference_folder, config, run)
    main, averaged = _split_by_origin(samples.client_id)
    scores, final = _score_each(samples, (main, averaged), held, run.seed)
    holders = None if arm.federation.engine == "deployment" else partition
    useful = measure_utility(samples, main, held.judge, train, test, holders, config, run.seed)
    # On pixels: the cheapest features.
    pixels = next((e for e in held.extractors if e.name == _CLIENTS_BY), None)
    metrics: ArmMetrics = {
        "conditions": _conditions(samples, scores, scored_with(train, test, config)),
        "scores": {**scores.scores, **useful.scores, **_of_average(final.scores if final else {})},
        "class_histogram": _histogram(scores, held.judge),
        "clients": _score_clients(samples, pixels, held) if pixels else {},
        "client_utility": useful.clients,
        "skipped": {
            **scores.skipped,
            **useful.skipped,
            **_of_average(final.skipped if final else {}),
        },
    }
    return metrics, _sample_classes(samples, main, held.judge)


def _score_each(
    samples: Samples, parts: tuple[np.ndarray, np.ndarray], held: Yardstick, seed: int
) -> tuple[Scores, Scores | None]:
    total = samples.images.num_images * len(held.extractors)
    with progress_bar("evaluating", total) as advance:

        def score(rows: np.ndarray) -> Scores:
            images, asked = samples.images.images[rows], samples.labels
            asked = None if asked is None else asked[rows]
            return score_samples(images, held, seed=seed, progress=advance, asked=asked)

        return score(parts[0]), score(parts[1]) if len(parts[1]) else None


def _read_drawn(file: Path) -> Samples:
    samples = read_samples(file)
    if not samples.drawn:
        raise DataError(
            f"{file} does not say how its samples were drawn; draw them again: "
            "kedro run --pipelines sampling"
        )
    return samples


def _conditions(samples: Samples, scores: Scores, evaluated: Evaluated) -> Conditions:
    """Return how the samples were drawn, and how many were scored against how many."""
    drawn, counts = samples.drawn, _samples_per_client(samples.client_id)
    family = find_family(drawn["family"])
    conditions = {
        "reference_split": evaluated["evaluation"]["reference_split"],
        "num_samples": scores.num_images,
        "num_reference": scores.num_reference,
        **({"num_clients": len(counts), "samples_per_client": counts} if counts else {}),
        **family.describe_sampling(drawn["sampling"], samples.labels is not None),
        "weights": drawn["weights"],
        **{name: drawn[name] for name in ("seed", "weights_digest", "sampling")},
        **evaluated,
    }
    return CONDITIONS.validate_python(conditions)


def _of_average(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{FINAL_AVERAGE}{name}": value for name, value in values.items()}


def _sample_classes(samples: Samples, main: np.ndarray, judge: LabelJudge | None) -> pd.DataFrame:
    """Return the class that the judge gives to samples spread evenly over the file.

    Columns: row (place in the file), label (int), class_name, confidence, and of a conditional
    model ``asked``, the class that it was to draw. No rows without a judge, or of one that knows
    the commonest class alone.
    """
    if judge is None or judge.refusal:
        return pd.DataFrame({"row": [], "label": [], "class_name": [], "confidence": []})
    count = min(_JUDGED, len(main))
    rows = main[np.linspace(0, len(main), count, endpoint=False).astype(int)]
    probabilities = judge.probabilities(samples.images.images[rows])
    labels = probabilities.argmax(axis=1)
    table = pd.DataFrame(
        {
            "row": rows,
            "label": labels,
            "class_name": [judge.class_names[label] for label in labels],
            "confidence": probabilities.max(axis=1),
        }
    )
    return table if samples.labels is None else table.assign(asked=samples.labels[rows])


def _histogram(scores: Scores, judge: LabelJudge | None) -> Histogram | None:
    if scores.histogram is None or judge is None:
        return None
    total = sum(int(count) for count in judge.class_counts)
    return {
        "class_names": list(scores.histogram.class_names),
        "counts": [int(count) for count in scores.histogram.counts],
        "shares": [float(share) for share in scores.histogram.shares],
        "training_shares": [int(count) / total for count in judge.class_counts],
        "classifier": judge.origin,
        "classifier_test_accuracy": float(judge.test_accuracy),
        "classifier_majority_share": float(judge.majority_share),
    }


def _split_by_origin(client_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that an arm is judged by, and those of its final average, from ids [N].

    An arm whose clients have models of their own is judged by theirs; the rows of the global model
    are then the second part. Without such clients all rows are the first part.
    """
    personal = client_id != GLOBAL_MODEL
    if not personal.any():
        return np.arange(len(client_id)), np.empty(0, dtype=np.int64)
    return np.flatnonzero(personal), np.flatnonzero(~personal)


def _samples_per_client(client_id: np.ndarray) -> dict[str, int]:
    """Return the number of samples of each client's own model, by client id."""
    ids, counts = np.unique(client_id[client_id != GLOBAL_MODEL], return_counts=True)
    return {str(client): int(count) for client, count in zip(ids, counts, strict=True)}


def _score_clients(
    samples: Samples, pixels: FeatureExtractor, held: Yardstick
) -> dict[str, ClientScores]:
    """Return for each client its ``num_samples``, distance and ``class_shares``.

    Samples of the global model are left out. The distance, in the space of ``pixels``, is left out
    where a client has fewer than 64 samples, and the shares where there
    is no judge, or one that knows the commonest class alone. A distance to all classes is large
    for a client that rightly draws few of them.
    """
    scores: dict[str, ClientScores] = {}
    reference, judge = held.references[pixels.name].statistics, held.judge
    for client, count in _samples_per_client(samples.client_id).items():
        own = samples.images.images[samples.client_id == int(client)]
        scores[client] = {"num_samples": count}
        if count >= _FEWEST_FOR_A_DISTANCE:
            features = extract_features(pixels, own, held.config.batch_size)
            distance = frechet_distance(gaussian_statistics(features), reference)
            scores[client]["fid_pixels"] = distance
        if judge is not None and not judge.refusal:
            classes = judge.probabilities(own).argmax(axis=1)
            shares = np.bincount(classes, minlength=len(judge.class_names)) / count
            scores[client]["class_shares"] = shares.tolist()
    return scores
