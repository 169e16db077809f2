"""The upload of personal layers after the last round: asked for, checked, and averaged."""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import Aggregation, WeightedMean, by_rows
from phoenix_pipeline.federated.aggregation.rule import ReplyCheck
from phoenix_pipeline.federated.client_answers import (
    clients_fault,
    open_answer,
    plain_text,
    read_count,
)
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    PERSONAL_LAYERS_QUERY,
    count_bytes,
    unpack_arrays,
)
from phoenix_pipeline.federated.run_state import RunState

logger = logging.getLogger(__name__)

Weights = Literal["ema", "raw"]


@dataclass(frozen=True)
class Upload:
    """One client's personal layers, its number of images, and what crossed the wire."""

    client_id: int
    layers: dict[str, Tensor]
    num_examples: int
    bytes_up: int
    bytes_down: int


def ask_for_layers(
    job: FederatedJob, run_key: str, fleet: Fleet, clients: Collection[int], weights: Weights
) -> Iterator[Upload]:
    """Yield the layers of ``clients`` that send them, by id; others with a line in the log."""
    # A node counts its images as it reads them for training.
    settings = job.settings.model_dump_json()
    config = ConfigRecord(
        {"round": job.config.num_rounds, "weights": weights, "run": run_key, "settings": settings}
    )
    content = RecordDict({CONFIG: config})
    template = _initial_layers(job)
    node_of = {client: node for node, client in fleet.clients.items()}
    messages = [
        Message(content, node_of[client], f"query.{PERSONAL_LAYERS_QUERY}")
        for client in sorted(clients)
    ]
    for reply in fleet.grid.send_and_receive(messages, timeout=job.config.round_timeout_s):
        client = fleet.clients[reply.metadata.src_node_id]
        try:
            upload = _read(reply, client, fleet.sizes[client], template, count_bytes(content))
        except FederationError as error:
            reason = plain_text(str(error))
            logger.warning("without the personal layers of client %s: %s", client, reason)
            continue
        yield upload


def _read(
    reply: Message, client: int, most: int, template: Mapping[str, Tensor], bytes_down: int
) -> Upload:
    """Return the layers in ``reply``; raises FederationError for what cannot be such layers."""
    with clients_fault():
        content, size = open_answer(reply, (ARRAYS, METRICS), template)
        num_examples = min(most, read_count(content[METRICS]))
        layers = unpack_arrays(content[ARRAYS])
        ReplyCheck(template)(layers, num_examples)
        return Upload(client, layers, num_examples, size, bytes_down)


def average_personal_layers(
    job: FederatedJob, fleet: Fleet, connected: Collection[int], run: RunState, weights: Weights
) -> dict[str, Tensor] | None:
    """Return the mean of the clients' personal layers by example counts; see also ``RowMean``.

    Clients that do not send theirs are left out; None if nobody does. The bytes are added to each
    client's newest row.
    """
    traffic: dict[int, tuple[int, int]] = {}
    mean: Aggregation | None = None
    for upload in ask_for_layers(job, run.key, fleet, connected, weights):
        begun = run.initial_personal or _initial_layers(job)
        mean = mean or by_rows(WeightedMean(upload.layers), begun)
        mean.add(upload.layers, upload.num_examples)
        traffic[upload.client_id] = (upload.bytes_up, upload.bytes_down)
    run.history.charge(traffic)
    if mean is None:
        logger.warning("no client sent its personal layers: there is no averaged model")
        return None
    return mean.result()


def _initial_layers(job: FederatedJob) -> dict[str, Tensor]:
    """Return personal layers as clients begin with them: names, shapes and dtypes to expect."""
    state = job.settings.build_network().state_dict()
    return split_personal(state, job.settings.personal_layers)[1]
