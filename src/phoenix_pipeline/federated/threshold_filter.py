"""Threshold Filtering: which clients are disconnected, from the scores that they send.

Pure decisions: nothing here knows of messages or models. The score is
:func:`phoenix_pipeline.metrics.monitoring.monitor_score`; larger is worse.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from phoenix_pipeline.config import ThresholdFilterConfig

MIN_SCORES = 3
# Makes the median absolute deviation of a Gaussian its standard deviation.
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True)
class Decision:
    """What one check says of one client.

    ``strikes``: bad checks in a row, this one included. ``reason``: plain words, "" when there is
    nothing to say.
    """

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
    than ``min_clients`` stay connected.

    Args:
        scores: of this check, by client; clients that sent none are not judged.
        strikes: of each client before this check; absent means 0.
        num_connected: clients connected before this check, judged or not.
        config: the rules.
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
    """Return the decision on one client before anyone is disconnected."""
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
