"""One round of a deployment at one site alone: what it would answer, with nobody to send it to.

The message is the server's, the answers are those of the node's own ClientApp on its own images.
The server's part in it (which clients, which aggregation) does not change what a site sends.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.config import parse_config_args

from phoenix_pipeline.config import (
    AggregationConfig,
    DifferentialPrivacyConfig,
    LocalWorkConfig,
    ServerOptimizerConfig,
)
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.engines.local_grid import LocalGrid
from phoenix_pipeline.federated.engines.node_app import (
    LEDGER,
    NodeConfig,
    open_node,
    read_node_config,
)
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    DESCRIBE_QUERY,
    count_bytes,
    unpack_arrays,
)

_STATE, _SERVER = "state", "server"
BEFORE, EACH_ROUND = "before the first round", "in each round"


@dataclass(frozen=True)
class Answer:
    """What one message would carry away: ``numbers`` by name, ``arrays`` by name, ``num_bytes``."""

    when: str
    numbers: Mapping[str, Any]
    arrays: Mapping[str, torch.Tensor]
    num_bytes: int


@dataclass(frozen=True)
class Rehearsal:
    """``answers`` of the site in order, of ``shared`` arrays; ``kept``: what the site keeps."""

    answers: list[Answer]
    shared: Mapping[str, tuple[int, ...]]
    kept: Mapping[str, tuple[int, ...]]
    num_images: int


def parse_node_config(text: str) -> NodeConfig:
    """Return what ``flower-supernode --node-config`` would be given; raises SettingsError."""
    return read_node_config(Context(1, 1, _parse(text), RecordDict(), {}))


def rehearse(job: FederatedJob, node_config: str, folder: Path) -> Rehearsal:
    """Run one round of one step at the site of ``node_config``; return what it would send.

    State goes to ``folder``, which must be empty; the site's own state folder is only read, for
    what privacy it has spent.
    Raises SettingsError: the node's configuration or the run's settings are not usable.
    Raises DataError: its images are not readable.
    Raises FederationError: the site would refuse, or could not train; says why.
    """
    node, (state, server) = parse_node_config(node_config), (folder / _STATE, folder / _SERVER)
    state.mkdir(parents=True)
    ledger = node.state_folder / LEDGER
    if ledger.is_file():
        shutil.copyfile(ledger, state / LEDGER)
    config = {**_parse(node_config), "state-folder": str(state)}
    with _Recorder(node.client_id, config) as grid:
        size = grid.introduce(job)
        alone = Fleet(grid, grid.clients, {node.client_id: size}, lambda client: ClientState())
        result = run_program(_one_step(job), server, alone, Watch())
    own = {k: v.shape for k, v in job.settings.build_network().state_dict().items()}
    shared = {name: tuple(tensor.shape) for name, tensor in result.raw.items()}
    kept = {name: tuple(shape) for name, shape in own.items() if name not in shared}
    return Rehearsal(grid.answers, shared, kept, size)


def _parse(text: str) -> dict[str, Any]:
    try:
        return dict(parse_config_args([text]))
    except ValueError as error:
        raise FederationError(f"--node-config cannot be read: {error}") from error


def _one_step(job: FederatedJob) -> FederatedJob:
    """Return ``job`` with one client in one round of one step; what a client does to it stays."""
    config, privacy = job.config, job.config.differential_privacy
    # Noise of the server's is added after the answer.
    if privacy.is_central:
        privacy = DifferentialPrivacyConfig()
    alone = config.model_copy(
        update={
            "num_rounds": 1,
            "local_work": LocalWorkConfig(unit="steps", amount=1),
            "client_fraction": 1.0,
            "min_clients": 1,
            "pooled": False,
            "aggregation": AggregationConfig(),
            "server_optimizer": ServerOptimizerConfig(),
            "differential_privacy": privacy,
        }
    )
    return replace(job, config=alone, pool=None, warmup_steps=0, final_average=None)


class _Recorder(LocalGrid):
    """Calls the node's app for every message and notes the answers."""

    def __init__(self, client_id: int, node_config: dict[str, Any]) -> None:
        super().__init__([client_id], 1)
        self._app = build_client_app(open_node)
        self._node_config = node_config
        self.answers: list[Answer] = []

    def introduce(self, job: FederatedJob) -> int:
        """Return how many images the site says it holds; raises FederationError if it refuses."""
        config = ConfigRecord({"settings": job.settings.model_dump_json()})
        (node_id,) = self.clients
        message = Message(RecordDict({CONFIG: config}), node_id, f"query.{DESCRIBE_QUERY}")
        (reply,) = self.send_and_receive([message])
        if reply.has_error():
            raise FederationError(f"this site would not take part: {reply.error.reason}")
        return int(self.answers[-1].numbers["num-examples"])

    def _context(self, message: Message) -> Context:
        return Context(1, message.metadata.dst_node_id, self._node_config, RecordDict(), {})

    def _call(self, message: Message, context: Context) -> Message:
        reply = self._app(message, context)
        if not reply.has_error():
            query = message.metadata.message_type.startswith("query")
            self.answers.append(_read(reply.content, BEFORE if query else EACH_ROUND))
        return reply


def _read(content: RecordDict, when: str) -> Answer:
    numbers: dict[str, Any] = {}
    arrays: dict[str, torch.Tensor] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            # Beside the weights, what a strategy of the run sends along.
            prefix = "" if name == ARRAYS else f"{name}."
            arrays |= {f"{prefix}{key}": tensor for key, tensor in unpack_arrays(record).items()}
        elif isinstance(record, MetricRecord | ConfigRecord):
            numbers.update(record.items())
    return Answer(when, numbers, arrays, count_bytes(content))
