"""The Strategy: chooses clients, hands each its share of the round, and averages the replies.

It extends Flower's FedAvg by ``configure_train`` and ``aggregate_train``; ``start`` is Flower's.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from statistics import median

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import (
    CLIPPING,
    Aggregation,
    build_aggregation,
    check_num_replies,
)
from phoenix_pipeline.federated.aggregation.clipping import norm_of_this_round
from phoenix_pipeline.federated.client_answers import check_usable, read_reply, say_reasons
from phoenix_pipeline.federated.fleet import RollCall
from phoenix_pipeline.federated.history import ABSENT, Row, new_row
from phoenix_pipeline.federated.privacy.plan import PrivacyPlan
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    INITIAL_PERSONAL,
    REFERENCE,
    ClientSettings,
    count_bytes,
    pack_arrays,
    pack_weights,
)
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.server_optimizer import ServerOptimizer
from phoenix_pipeline.federated.threshold_filter import Monitor
from phoenix_pipeline.federated.transport import ServerTransport
from phoenix_pipeline.federated.work_plan import plan_steps
from phoenix_pipeline.quantities import counted
from phoenix_pipeline.strategies import ServerView, Strategies
from phoenix_pipeline.strategies.strategy import apart

logger = logging.getLogger(__name__)

OnReply = Callable[[], None]


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
        roll_call: RollCall = lambda server_round: {},
    ) -> None:
        super().__init__(weighted_by_key="num-examples", arrayrecord_key=ARRAYS)
        self._config = config
        self._settings = settings
        self._optimizer = ServerOptimizer.of(config.server_optimizer, settings)
        self._strategies = Strategies.of(settings.strategies)
        self._privacy = PrivacyPlan(config, settings, sizes, run.history, run.folder)
        self._settings_json = self._privacy.settings_for_clients().model_dump_json()
        # Not copied: clients may join between rounds.
        self._clients = nodes
        self._sizes = sizes
        self._run = run
        self._monitor = monitor
        self._on_reply = on_reply
        self._roll_call = roll_call
        self._absent: list[Row] = []
        self._transport = ServerTransport(settings, run)
        self._bytes_down: dict[int, int] = {}
        self._steps: dict[int, int] = {}

    def summary(self) -> None:
        """Say what this federation is, in one line."""
        logger.info(
            "%s, %s, %s done",
            counted(len(self._clients), "client"),
            counted(self._config.num_rounds, "round"),
            self._run.rounds_done,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per chosen client; raises SettingsError if the rule needs more."""
        current = self._run.rounds_done + 1
        connected = self._connected(current)
        chosen = self._privacy.choose(connected, current)
        if not self._privacy.is_central:
            check_num_replies(self._config, len(chosen))
        self._steps = steps = plan_steps(
            {client: self._sizes[client] for client in chosen},
            self._config.local_work,
            self._settings.training.batch_size,
        )
        self._privacy.begin(steps)
        node_of = {client: node for node, client in self._clients.items()}
        self._transport.open_round(current, chosen, arrays)
        initial = self._run.initial_personal
        newcomers = set(chosen) - self._run.history.trained if initial else set()
        initial_record = pack_arrays(initial if newcomers else {})
        messages = []
        for client in chosen:
            content = self._content(client, current, steps[client])
            if client in newcomers:
                content[INITIAL_PERSONAL] = initial_record
            self._bytes_down[client] = self._wire_bytes(count_bytes(content))
            messages.append(Message(content, node_of[client], MessageType.TRAIN))
        return messages

    def _connected(self, current: int) -> dict[int, int]:
        """Return sizes of clients that may train; raises FederationError below ``min_clients``."""
        away, gone = self._roll_call(current), self._run.history.disconnected
        self._absent = [
            {**new_row(current, client, self._sizes[client]), "status": ABSENT, "reason": reason}
            for client, reason in sorted(away.items())
            if client not in gone
        ]
        there = {c: size for c, size in self._sizes.items() if c not in gone and c not in away}
        if len(there) < self._config.min_clients:
            raise FederationError(
                f"round {current}: {len(there)} of {len(self._sizes)} clients are there, "
                f"federation.min_clients is {self._config.min_clients} "
                f"({say_reasons(self._absent)})"
            )
        return there

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate usable replies as they come; raises FederationError if they are too few."""
        current = self._run.rounds_done + 1
        private = self._privacy.round(current, self._run.clip_norm)
        expected = self._transport.expected
        last = norm_of_this_round(
            self._run.clip_norm, self._settings.training, current, self._config.num_rounds
        )
        usual, seed = median(self._sizes.values()), self._settings.seed
        more = len(expected) > len(self._run.raw)
        rule = build_aggregation(self._config, expected, seed, current, private, last, usual, more)
        rows = []
        for row in chain((self._read(reply, current, rule) for reply in replies), self._absent):
            rows.append(row)
            if self._on_reply:
                self._on_reply()
        usable = [row for row in rows if row["status"] == "ok"]
        check_usable(self._config, current, rows)
        weights, self._run.strategies = self._follow(rule.result(), usable, current)
        weights, moments = self._optimizer.step(
            self._run.raw, weights, self._run.server_optimizer, current
        )
        if self._monitor:
            self._monitor.judge(current, rows, self._run.history, len(self._sizes))
        self._privacy.account(current, rows, self._run.history)
        if isinstance(rule, CLIPPING):
            self._run.clip_norm = rule.next_clip_norm()
        self._transport.close_round({row["client_id"] for row in usable})
        self._run.rounds_done = current
        self._run.history.add(current, rows)
        self._run.server_optimizer = moments
        with_loss = [row for row in usable if not math.isnan(row["loss"])]
        sizes = [row["num_examples"] for row in with_loss]
        total = sum(n * row["loss"] for n, row in zip(sizes, with_loss, strict=True))
        loss = total / sum(sizes) if sizes else float("nan")
        return pack_weights(weights), MetricRecord({"loss": loss, "clients": len(usable)})

    def _follow(
        self, result: Mapping[str, Tensor], usable: Sequence[Row], current: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what the strategies make of the aggregate, and what they keep."""
        aggregate, sent = apart(result, self._run.raw)
        share = sum(row["num_examples"] for row in usable) / sum(self._sizes.values())
        kept = self._run.strategies
        view = ServerView(self._run.raw, aggregate, sent, kept, share, current)
        return self._strategies.after_round(view)

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

    def _content(self, client: int, current: int, steps: int) -> RecordDict:
        """Return what ``client``, with ``steps`` to make, is sent in round ``current``."""
        arrays, described = self._transport.write(client)
        config = ConfigRecord(
            {
                "settings": self._settings_json,
                "round": current,
                "run": self._run.key,
                "oldest-checkpoint": self._run.oldest_checkpoint,
                "steps": steps,
                "run-steps": steps * self._config.num_rounds,
                "progress-start": (current - 1) / self._config.num_rounds,
                "progress-end": current / self._config.num_rounds,
                **described,
            }
        )
        content = RecordDict({ARRAYS: arrays, CONFIG: config})
        if self._monitor and self._monitor.is_due(current):
            content[REFERENCE] = self._monitor.record
        return content

    def _read(self, message: Message, current: int, rule: Aggregation) -> Row:
        client = self._clients[message.metadata.src_node_id]
        row = new_row(current, client, self._sizes[client])
        row["bytes_down"] = self._bytes_down.get(client, 0)
        row["steps"] = self._steps.get(client, 0)
        most, template = row["steps"] * self._settings.training.batch_size, self._transport.expected
        row = read_reply(message, row, most, template, partial(self._transport.read, client), rule)
        row["bytes_up"] = self._wire_bytes(row["bytes_up"])
        return row

    def _wire_bytes(self, size: int) -> int:
        """Return what crosses the wire; nothing does where all data lies in one place."""
        return 0 if self._config.pooled else size
