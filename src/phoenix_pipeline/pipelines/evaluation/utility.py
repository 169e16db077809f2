"""What an arm's samples are worth as training data, at large and to each client."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet, Samples
from phoenix_pipeline.metrics.client_utility import SCORES as OF_CLIENTS
from phoenix_pipeline.metrics.client_utility import ClientUtility, client_utilities, summarise
from phoenix_pipeline.metrics.extractors import NO_JUDGE
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.metric import Metric
from phoenix_pipeline.metrics.utility import SCORES as AT_LARGE
from phoenix_pipeline.metrics.utility import classification_utility
from phoenix_pipeline.progress import progress_bar


@dataclass
class Useful:
    """Scores by name, each client's numbers by its id, and why what was asked for is missing."""

    scores: dict[str, float] = field(default_factory=dict)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def measure_utility(
    samples: Samples,
    rows: np.ndarray,
    judge: LabelJudge | None,
    train: ImageSet,
    test: ImageSet,
    partition: pd.DataFrame | None,
    config: EvaluationConfig,
    seed: int,
) -> Useful:
    """Return what ``config`` asks for.

    ``rows``: of the samples that the arm is judged by. ``partition``: who holds which image; None
    where nobody knows.
    """
    useful = Useful()
    if config.utility:
        with _or_why_not(useful, AT_LARGE):
            useful.scores |= _at_large(samples, rows, _known(judge), train, test, seed)
    if config.client_utility:
        with _or_why_not(useful, OF_CLIENTS):
            found = _of_clients(samples, _known(judge), train, test, partition)
            useful.scores |= summarise(found)
            useful.clients = {str(client): asdict(one) for client, one in found.items()}
    return useful


@contextmanager
def _or_why_not(useful: Useful, metrics: Sequence[Metric]) -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        useful.skipped |= {metric.name: str(error) for metric in metrics}


def _known(judge: LabelJudge | None) -> LabelJudge:
    if judge is None:
        raise SettingsError(NO_JUDGE)
    return judge


def _at_large(
    samples: Samples,
    rows: np.ndarray,
    judge: LabelJudge,
    train: ImageSet,
    test: ImageSet,
    seed: int,
) -> dict[str, float]:
    asked = None if samples.labels is None else samples.labels[rows]
    images = samples.images.images[rows]
    with progress_bar("utility", 2 * judge.config.epochs) as advance:
        found = classification_utility(
            images, judge, train, test, seed=seed, progress=advance, asked=asked
        )
    return {m.name: x for m, x in zip(AT_LARGE, (found.samples, found.real), strict=True)}


def _of_clients(
    samples: Samples,
    judge: LabelJudge,
    train: ImageSet,
    test: ImageSet,
    partition: pd.DataFrame | None,
) -> dict[int, ClientUtility]:
    if partition is None:
        raise SettingsError("nobody knows which images the sites of a deployment hold")
    by_client = partition.groupby("client_id")["image_index"]
    holdings = {int(str(client)): rows.to_numpy() for client, rows in by_client}
    given = samples.images.images, samples.client_id, holdings, judge, train, test
    with progress_bar("utility for clients", len(holdings)) as advance:
        return client_utilities(*given, progress=advance, asked=samples.labels)
