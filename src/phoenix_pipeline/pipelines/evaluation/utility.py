"""What an arm's samples are worth as training data, at large and to each client."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet, Samples
from phoenix_pipeline.metrics.client_utility import SCORES as OF_CLIENTS
from phoenix_pipeline.metrics.client_utility import client_utilities, summarise
from phoenix_pipeline.metrics.extractors import NO_JUDGE
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.utility import SCORES as AT_LARGE
from phoenix_pipeline.metrics.utility import classification_utility
from phoenix_pipeline.progress import progress_bar

_AT_LARGE = tuple(metric.name for metric in AT_LARGE)
_OF_CLIENTS = tuple(metric.name for metric in OF_CLIENTS)


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
    due: dict[tuple[str, ...], Callable[[LabelJudge], None]] = {}
    if config.utility:
        due[_AT_LARGE] = partial(_at_large, useful, samples, rows, train, test, seed)
    if config.client_utility:
        due[_OF_CLIENTS] = partial(_of_clients, useful, samples, train, test, partition)
    for names, measure in due.items():
        try:
            if judge is None:
                raise SettingsError(NO_JUDGE)
            measure(judge)
        except SettingsError as error:
            useful.skipped |= dict.fromkeys(names, str(error))
    return useful


def _at_large(
    useful: Useful,
    samples: Samples,
    rows: np.ndarray,
    train: ImageSet,
    test: ImageSet,
    seed: int,
    judge: LabelJudge,
) -> None:
    asked = None if samples.labels is None else samples.labels[rows]
    with progress_bar("utility", 2 * judge.config.epochs) as advance:
        found = classification_utility(
            samples.images.images[rows],
            judge,
            train,
            test,
            seed=seed,
            progress=advance,
            asked=asked,
        )
    useful.scores |= dict(zip(_AT_LARGE, (found.samples, found.real), strict=True))


def _of_clients(
    useful: Useful,
    samples: Samples,
    train: ImageSet,
    test: ImageSet,
    partition: pd.DataFrame | None,
    judge: LabelJudge,
) -> None:
    if partition is None:
        raise SettingsError("nobody knows which images the sites of a deployment hold")
    by_client = partition.groupby("client_id")["image_index"]
    holdings = {int(str(client)): rows.to_numpy() for client, rows in by_client}
    with progress_bar("utility for clients", len(holdings)) as advance:
        found = client_utilities(
            samples.images.images,
            samples.client_id,
            holdings,
            judge,
            train,
            test,
            progress=advance,
            asked=samples.labels,
        )
    useful.scores |= summarise(found)
    useful.clients = {str(client): asdict(one) for client, one in found.items()}
