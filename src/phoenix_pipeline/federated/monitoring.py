"""Threshold filtering over the rounds: who is checked when, and what follows."""

import logging
from collections.abc import Sequence

from flwr.app import ArrayRecord

from phoenix_pipeline.config import ThresholdFilterConfig
from phoenix_pipeline.federated.history import History
from phoenix_pipeline.federated.records import pack_arrays
from phoenix_pipeline.federated.round_table import Row
from phoenix_pipeline.federated.threshold_filter import decide
from phoenix_pipeline.metrics.monitoring import MonitorReference
from phoenix_pipeline.quantities import counted

logger = logging.getLogger(__name__)


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
            checked[decision.client_id].update(
                threshold=decision.threshold,
                strikes=decision.strikes,
                connected=decision.connected,
                reason=decision.reason,
            )
            if not decision.connected:
                logger.warning(
                    "round %s: client %s is disconnected: %s",
                    server_round,
                    decision.client_id,
                    decision.reason,
                )
