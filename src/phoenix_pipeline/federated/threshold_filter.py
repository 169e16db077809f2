"""Threshold Filtering: a client scores its own model, and the server decides who is disconnected.

The score is :func:`phoenix_pipeline.metrics.monitoring.monitor_score`; larger is worse.
:func:`decide` knows neither messages nor models.
"""

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from flwr.app import ArrayRecord

from phoenix_pipeline.config import SamplingConfig, ThresholdFilterConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.families.classes import spread_labels
from phoenix_pipeline.federated.client_model import ClientModel
from phoenix_pipeline.federated.history import History, Row
from phoenix_pipeline.federated.own_models import SiteLatents
from phoenix_pipeline.federated.records import ClientSettings, pack_arrays
from phoenix_pipeline.federated.sites import Site
from phoenix_pipeline.latents.autoencoder import attach
from phoenix_pipeline.metrics.monitoring import MonitorReference, monitor_score
from phoenix_pipeline.quantities import counted
from phoenix_pipeline.seeding import image_seeds

logger = logging.getLogger(__name__)

MIN_SCORES = 3
# Makes the median absolute deviation of a Gaussian its standard deviation.
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True)
class Decision:
    """One check of one client: ``strikes`` in a row, this one included, and a ``reason`` or ""."""

    client_id: int
    score: float
    threshold: float
    strikes: int
    connected: bool
    reason: str


def threshold_of(scores: Sequence[float], config: ThresholdFilterConfig) -> float:
    """Return the smaller of the absolute and the relative rule; infinite when neither applies.

    The relative rule is median + relative_threshold x spread over the finite scores, spread =
    max(1.4826 x MAD, min_spread x median): equal clients have a MAD of about 0, and without the
    floor rounding would part them. It needs three finite scores; of two, each is as far from the
    median as the other.
    """
    rules = [] if config.absolute_threshold is None else [config.absolute_threshold]
    finite = [score for score in scores if math.isfinite(score)]
    if config.relative_threshold is not None and len(finite) >= MIN_SCORES:
        median = statistics.median(finite)
        deviation = statistics.median(abs(score - median) for score in finite)
        spread = max(_MAD_TO_DEVIATION * deviation, config.min_spread * median)
        rules.append(median + config.relative_threshold * spread)
    return min(rules, default=math.inf)


def decide(
    scores: Mapping[int, float],
    strikes: Mapping[int, int],
    num_connected: int,
    config: ThresholdFilterConfig,
) -> list[Decision]:
    """Judge every client in ``scores``, in the order of their ids.

    A score above the threshold, or one that is not finite, is a strike; a good check takes all
    strikes back. ``patience`` strikes in a row disconnect, the worst score first, as long as more
    than ``min_clients`` stay connected. ``scores``: of this check, by client; clients that sent
    none are not judged. ``strikes``: of each client before this check; absent means 0.
    ``num_connected``: clients connected before this check, judged or not.
    """
    threshold = threshold_of(list(scores.values()), config)
    num_finite = sum(map(math.isfinite, scores.values()))
    judged = {
        client: _judge(client, scores[client], threshold, strikes.get(client, 0), num_finite)
        for client in sorted(scores)
    }
    struck = [d for d in judged.values() if d.strikes > strikes.get(d.client_id, 0)]
    due = [decision for decision in struck if decision.strikes >= config.patience]
    due.sort(key=lambda decision: (-_badness(decision.score), decision.client_id))
    room = max(0, num_connected - config.min_clients)
    for position, decision in enumerate(due):
        if position < room:
            judged[decision.client_id] = replace(decision, connected=False)
        else:
            spared = f"{decision.reason}; kept, because min_clients={config.min_clients}"
            judged[decision.client_id] = replace(decision, reason=spared)
    return list(judged.values())


def _judge(client: int, score: float, threshold: float, before: int, num_finite: int) -> Decision:
    finite = math.isfinite(score)
    if finite and math.isinf(threshold):
        reason = f"not judged: {num_finite} finite scores, the relative rule needs {MIN_SCORES}"
        return Decision(client, score, threshold, before, True, reason)
    if finite and score <= threshold:
        return Decision(client, score, threshold, 0, True, "")
    strikes = before + 1
    what = f"score {score:.2f} above {threshold:.2f}" if finite else "score not finite"
    checks = "in 1 check" if strikes == 1 else f"in {strikes} checks in a row"
    return Decision(client, score, threshold, strikes, True, f"{what} {checks}")


def _badness(score: float) -> float:
    return score if math.isfinite(score) else math.inf


class Monitor:
    """Hands out the reference statistics and judges the scores that come back."""

    def __init__(self, config: ThresholdFilterConfig, reference: MonitorReference) -> None:
        self._config = config
        self.record: ArrayRecord = pack_arrays(reference.arrays())

    def is_due(self, server_round: int) -> bool:
        """Return whether clients are checked in this round."""
        return server_round % self._config.monitor_every == 0

    def judge(
        self, server_round: int, rows: Sequence[Row], earlier: History, num_clients: int
    ) -> None:
        """Write threshold, strikes and verdict into this round's ``rows``."""
        strikes = earlier.strikes
        for row in rows:
            row["strikes"] = strikes.get(row["client_id"], 0)
        checked = {row["client_id"]: row for row in rows if row["status"] == "ok"}
        if not self.is_due(server_round) or not checked:
            return
        scores = {client: row["score"] for client, row in checked.items()}
        connected = num_clients - len(earlier.disconnected)
        decisions = decide(scores, strikes, connected, self._config)
        logger.info(
            "round %s: the threshold filter checked %s by their samples: %s above the threshold",
            server_round,
            counted(len(decisions), "client"),
            sum(not decision.score <= decision.threshold for decision in decisions),
        )
        for decision in decisions:
            row = checked[decision.client_id]
            row["threshold"], row["strikes"] = decision.threshold, decision.strikes
            row["connected"], row["reason"] = decision.connected, decision.reason
            if not decision.connected:
                logger.warning(
                    "round %s: client %s is disconnected: %s",
                    server_round,
                    decision.client_id,
                    decision.reason,
                )


def score_own_model(
    reference: MonitorReference,
    settings: ClientSettings,
    site: Site,
    model: ClientModel,
    server_round: int,
) -> float:
    """Return how far the client's own samples are from real images; NaN, a strike, without any."""
    model.put_into_network()
    latents = SiteLatents.of(settings, site.own)
    attach(model.network, latents.autoencoder if latents else None)
    count = settings.monitor_samples
    seeds = list(image_seeds(settings.seed, "monitor", count, site.client_id, server_round))
    shape = (settings.channels, settings.image_size, settings.image_size)
    sampling = SamplingConfig(num_images=count, batch_size=count, num_steps=settings.monitor_steps)
    labels = None
    if settings.class_names and site.labels is not None:
        held = torch.bincount(site.labels, minlength=len(settings.class_names))
        labels = spread_labels(held.cpu().numpy(), count).tolist()
    batches = model.family.sample_images(
        model.network, settings.model, sampling, shape, seeds, site.images.device, labels=labels
    )
    try:
        return monitor_score(np.concatenate(list(batches)), reference)
    except TrainingError as error:
        logger.warning("client %s cannot be scored: %s", site.client_id, error)
        return math.nan
