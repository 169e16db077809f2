"""The Strategy: chooses clients, hands each its share of the round, and averages the replies.

It extends Flower's FedAvg by ``configure_train`` and ``aggregate_train``; ``start`` is Flower's.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import WeightedMean
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    ClientSettings,
    count_bytes,
    pack_arrays,
    unpack_arrays,
)
from phoenix_pipeline.federated.work_plan import plan_steps, select_clients

logger = logging.getLogger(__name__)

Row = dict[str, Any]
OnReply = Callable[[int, Row], None]


@dataclass
class Progress:
    """Where a run stands: rounds done, rounds on disk, and one row per round and client."""

    rounds_done: int
    rounds_saved: int
    rows: list[Row]


class PhoenixStrategy(FedAvg):
    """FedAvg over the clients of ``nodes`` (node id -> client id), continued at ``progress``."""

    def __init__(
        self,
        config: FederationConfig,
        settings: ClientSettings,
        nodes: Mapping[int, int],
        sizes: Mapping[int, int],
        model: Mapping[str, Tensor],
        progress: Progress,
        on_reply: OnReply | None = None,
    ) -> None:
        super().__init__(weighted_by_key="num-examples", arrayrecord_key=ARRAYS)
        self._config = config
        self._settings = settings
        self._clients = dict(nodes)
        self._sizes = dict(sizes)
        self._model = model
        self._progress = progress
        self._on_reply = on_reply
        self._bytes_down: dict[int, int] = {}

    def summary(self) -> None:
        """Say what this federation is, in one line."""
        logger.info(
            "%s clients, %s rounds, %s done",
            len(self._clients),
            self._config.num_rounds,
            self._progress.rounds_done,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per chosen client, in client order."""
        current = self._progress.rounds_done + 1
        chosen = select_clients(
            self._sizes, self._config.client_fraction, self._settings.seed, current
        )
        steps = plan_steps(
            {client: self._sizes[client] for client in chosen},
            self._config.local_work,
            self._settings.training.batch_size,
        )
        node_of = {client: node for node, client in self._clients.items()}
        settings = self._settings.model_dump_json()
        messages = []
        for client in chosen:
            record = ConfigRecord(
                {
                    "settings": settings,
                    "round": current,
                    "checkpointed-round": self._progress.rounds_saved,
                    "steps": steps[client],
                    "progress-start": (current - 1) / self._config.num_rounds,
                    "progress-end": current / self._config.num_rounds,
                }
            )
            content = RecordDict({ARRAYS: arrays, CONFIG: record})
            self._bytes_down[node_of[client]] = self._wire_bytes(content)
            messages.append(Message(content, node_of[client], MessageType.TRAIN))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the replies as they come; a bad one is left out with its reason.

        Raises:
            FederationError: fewer than ``federation.min_clients`` replies can be used.
        """
        current = self._progress.rounds_done + 1
        mean = WeightedMean(self._model)
        rows = []
        for message in replies:
            row = self._read_reply(message, current, mean)
            rows.append(row)
            if self._on_reply:
                self._on_reply(current, row)
        usable = [row for row in rows if row["status"] == "ok"]
        if len(usable) < self._config.min_clients:
            reasons = "; ".join(f"client {r['client_id']}: {r['reason']}" for r in rows[:3])
            raise FederationError(
                f"round {current}: {len(usable)} of {len(rows)} clients gave a usable reply, "
                f"federation.min_clients is {self._config.min_clients} ({reasons})"
            )
        self._progress.rounds_done = current
        self._progress.rows.extend(rows)
        weights = [row["num_examples"] for row in usable]
        loss = sum(w * row["loss"] for w, row in zip(weights, usable, strict=True)) / sum(weights)
        return pack_arrays(mean.result()), MetricRecord({"loss": loss, "clients": len(usable)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for nothing: models are judged by their samples, after training."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing, as nothing was asked for."""
        return None

    def _read_reply(self, message: Message, current: int, mean: WeightedMean) -> Row:
        """Add one reply to ``mean`` and return its row."""
        node = message.metadata.src_node_id
        row: Row = {
            "round": current,
            "client_id": self._clients[node],
            "num_examples": self._sizes[self._clients[node]],
            "images_trained": 0,
            "loss": float("nan"),
            "seconds": float("nan"),
            "bytes_up": 0,
            "bytes_down": self._bytes_down.get(node, 0),
            "status": "ok",
            "score": float("nan"),
            "threshold": float("nan"),
            "connected": True,
            "reason": "",
        }
        if message.has_error():
            return row | {"status": "failed", "reason": message.error.reason}
        metrics = message.content[METRICS]
        row["bytes_up"] = self._wire_bytes(message.content)
        try:
            mean.add(unpack_arrays(message.content[ARRAYS]), float(metrics["num-examples"]))
        except (FederationError, KeyError, ValueError) as error:
            return row | {"status": "refused", "reason": str(error)}
        return row | {
            "images_trained": int(metrics["images-trained"]),
            "loss": float(metrics["loss"]),
            "seconds": float(metrics["seconds"]),
        }

    def _wire_bytes(self, content: RecordDict) -> int:
        """Return what crosses the wire; nothing does where all data lies in one place."""
        return 0 if self._config.pooled else count_bytes(content)
