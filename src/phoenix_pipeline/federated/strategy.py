"""The Strategy: chooses clients, hands each its share of the round, and averages the replies.

It extends Flower's FedAvg by ``configure_train`` and ``aggregate_train``; ``start`` is Flower's.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import WeightedMean
from phoenix_pipeline.federated.monitoring import Monitor
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    INITIAL_PERSONAL,
    METRICS,
    REFERENCE,
    ClientSettings,
    count_bytes,
    pack_arrays,
    unpack_arrays,
)
from phoenix_pipeline.federated.round_table import Row, new_row
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.work_plan import plan_steps, select_clients

logger = logging.getLogger(__name__)

OnReply = Callable[[int, Row], None]

_REPLY_MARGIN_BYTES = 1 << 20


class PhoenixStrategy(FedAvg):
    """FedAvg over the clients of ``nodes`` (node id -> client id), continued at ``run``."""

    def __init__(
        self,
        config: FederationConfig,
        settings: ClientSettings,
        nodes: Mapping[int, int],
        sizes: Mapping[int, int],
        run: RunState,
        monitor: Monitor | None = None,
        on_reply: OnReply | None = None,
    ) -> None:
        super().__init__(weighted_by_key="num-examples", arrayrecord_key=ARRAYS)
        self._config = config
        self._settings = settings
        self._told = settings.model_dump_json()
        self._clients = dict(nodes)
        self._node_of = {client: node for node, client in nodes.items()}
        self._sizes = dict(sizes)
        self._run = run
        self._monitor = monitor
        self._on_reply = on_reply
        self._bytes_down: dict[int, int] = {}

    def summary(self) -> None:
        """Say what this federation is, in one line."""
        logger.info(
            "%s clients, %s rounds, %s done",
            len(self._clients),
            self._config.num_rounds,
            self._run.rounds_done,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per chosen client, in client order."""
        current = self._run.rounds_done + 1
        history = self._run.history
        connected = {
            client: size
            for client, size in self._sizes.items()
            if client not in history.disconnected
        }
        chosen = select_clients(
            connected, self._config.client_fraction, self._settings.seed, current
        )
        steps = plan_steps(
            {client: self._sizes[client] for client in chosen},
            self._config.local_work,
            self._settings.training.batch_size,
        )
        messages = []
        for client in chosen:
            content = self._content(arrays, current, steps[client])
            if self._run.initial_personal and client not in history.trained:
                content[INITIAL_PERSONAL] = pack_arrays(self._run.initial_personal)
            self._bytes_down[client] = self._wire_bytes(content)
            messages.append(Message(content, self._node_of[client], MessageType.TRAIN))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the replies as they come; a bad one is left out with its reason.

        Raises:
            FederationError: fewer than ``federation.min_clients`` replies can be used.
        """
        current = self._run.rounds_done + 1
        mean = WeightedMean(self._run.raw)
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
        if self._monitor:
            self._monitor.judge(current, rows, self._run.history, len(self._sizes))
        self._run.rounds_done = current
        self._run.history.add(rows)
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

    def _content(self, arrays: ArrayRecord, current: int, steps: int) -> RecordDict:
        """Return what a client with ``steps`` to make is sent in round ``current``."""
        config = ConfigRecord(
            {
                "settings": self._told,
                "round": current,
                "run": self._run.key,
                "oldest-checkpoint": self._run.oldest_checkpoint,
                "steps": steps,
                "progress-start": (current - 1) / self._config.num_rounds,
                "progress-end": current / self._config.num_rounds,
            }
        )
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        if self._monitor and self._monitor.is_due(current):
            content[REFERENCE] = self._monitor.record
        return content

    def _read_reply(self, message: Message, current: int, mean: WeightedMean) -> Row:
        """Add one reply to ``mean`` and return its row."""
        client = self._clients[message.metadata.src_node_id]
        row = new_row(current, client, self._sizes[client])
        row["bytes_down"] = self._bytes_down.get(client, 0)
        if message.has_error():
            return row | {"status": "failed", "reason": message.error.reason}
        row["bytes_up"] = self._wire_bytes(message.content)
        try:
            self._check_size(message.content)
            metrics = message.content[METRICS]
            told = {
                "images_trained": int(metrics["images-trained"]),
                "loss": float(metrics["loss"]),
                "seconds": float(metrics["seconds"]),
                "score": float(metrics.get("score", float("nan"))),
            }
            mean.add(unpack_arrays(message.content[ARRAYS]), float(metrics["num-examples"]))
        except FederationError as error:
            return row | {"status": "refused", "reason": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            reason = f"the reply is malformed: {type(error).__name__}: {error}"
            return row | {"status": "refused", "reason": reason}
        return row | told

    def _check_size(self, content: RecordDict) -> None:
        """Raise FederationError for a reply that is larger than any of this model can be."""
        size = count_bytes(content)
        largest = 2 * sum(tensor.nbytes for tensor in self._run.raw.values()) + _REPLY_MARGIN_BYTES
        if size > largest:
            raise FederationError(f"the reply has {size} bytes; at most {largest} are allowed")

    def _wire_bytes(self, content: RecordDict) -> int:
        """Return what crosses the wire; nothing does where all data lies in one place."""
        return 0 if self._config.pooled else count_bytes(content)
