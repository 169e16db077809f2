"""The one upload of personal layers, after the last round, so that one model can be exported."""

from collections.abc import Collection, Mapping
from typing import Literal

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation import WeightedMean
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    METRICS,
    PERSONAL_LAYERS_QUERY,
    count_bytes,
    unpack_arrays,
)
from phoenix_pipeline.federated.run_state import RunState


def average_personal_layers(
    grid: Grid,
    nodes: Mapping[int, int],
    connected: Collection[int],
    run: RunState,
    weights: Literal["ema", "raw"],
) -> dict[str, Tensor]:
    """Return the mean of the clients' personal layers by example counts.

    ``nodes``: node id -> client id. The bytes are added to the clients' rows of the last round.

    Raises:
        FederationError: a client does not answer; names it.
    """
    config = ConfigRecord({"round": run.rounds_done, "weights": weights, "run": run.key})
    content = RecordDict({CONFIG: config})
    messages = [
        Message(content, node, f"query.{PERSONAL_LAYERS_QUERY}")
        for node, client in nodes.items()
        if client in connected
    ]
    traffic: dict[int, tuple[int, int]] = {}
    mean: WeightedMean | None = None
    for reply in grid.send_and_receive(messages):
        client = nodes[reply.metadata.src_node_id]
        if reply.has_error():
            raise FederationError(
                f"client {client} did not upload its personal layers: {reply.error.reason}; "
                "run again, or set personal_layers.final_average: false"
            )
        layers = unpack_arrays(reply.content[ARRAYS])
        mean = mean or WeightedMean(layers)
        mean.add(layers, float(reply.content[METRICS]["num-examples"]))
        traffic[client] = (count_bytes(reply.content), count_bytes(content))
    run.history.charge(run.rounds_done, traffic)
    return mean.result() if mean else {}
