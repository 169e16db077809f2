"""What ``metrics.json`` holds: the scores of one arm, and what a reader needs beside them."""

from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from phoenix_pipeline.json_files import check_content, read_json


class Evaluated(TypedDict):
    """What scores must have in common to be compared: settings, and digests of images."""

    evaluation: dict[str, Any]
    train_images: str
    test_images: str


@with_config(ConfigDict(extra="allow"))
class Conditions(Evaluated):
    """How the scores were made; beside these, what the family says of its way of sampling.

    ``sampling``: the group of settings. ``seed``: of the samples. ``weights_digest``: of the model
    that drew them. ``samples_per_client``: where clients have models of their own; their number is
    ``num_clients``.
    """

    reference_split: str
    num_samples: int
    num_reference: int
    weights: str
    weights_digest: str
    sampling: dict[str, Any]
    seed: int
    num_clients: NotRequired[int]
    samples_per_client: NotRequired[dict[str, int]]


class Histogram(TypedDict):
    """The judge's classes of the samples, and how good it is; shares and accuracy in [0, 1]."""

    class_names: list[str]
    counts: list[int]
    shares: list[float]
    training_shares: list[float]
    classifier: str
    classifier_test_accuracy: float
    classifier_majority_share: float


class ClientScores(TypedDict):
    """Scores of the samples of one client's own model; what cannot be had is left out."""

    num_samples: int
    fid_pixels: NotRequired[float]
    class_shares: NotRequired[list[float]]


class ArmMetrics(TypedDict):
    """``clients``: by client id; ``client_utility``: the fields of ``ClientUtility`` likewise.

    ``skipped``: the reason by metric or extractor.
    """

    conditions: Conditions
    scores: dict[str, float]
    class_histogram: Histogram | None
    clients: dict[str, ClientScores]
    client_utility: dict[str, dict[str, Any]]
    skipped: dict[str, str]


CONDITIONS = TypeAdapter(Conditions)
ARM_METRICS = TypeAdapter(ArmMetrics)


def read_metrics(path: Path) -> ArmMetrics:
    """Return what an evaluation wrote; raises CheckpointError for anything else."""
    return check_content(read_json(path), ARM_METRICS, path)
