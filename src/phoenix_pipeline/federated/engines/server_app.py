"""The ServerApp of a deployment: the SuperLink starts it; it runs the program over real nodes."""

import logging
import sys
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.engines.exchange import (
    JOB_FOLDER,
    Progress,
    read_job,
    with_nodes,
    write_failure,
    write_result,
)
from phoenix_pipeline.federated.engines.node_grid import open_fleet
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.records import (
    ARRAYS,
    CONFIG,
    PERSONAL_LAYERS_QUERY,
    unpack_arrays,
)

logger = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the job in ``job-folder`` and leave its result, or the reason for none, there."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    folder = Path(str(context.run_config[JOB_FOLDER]))
    progress = Progress(folder)
    watch = Watch(
        lambda number, means: progress.append("round", number, means),
        lambda number, row: progress.append("reply", number, row),
    )
    try:
        job = read_job(folder)
        fleet = open_fleet(grid, job.config.deployment, job.settings)
        result = run_program(with_nodes(job, fleet.sizes), folder, fleet, watch)
        write_result(folder, result, _released(job, result, fleet))
    except Exception as error:
        write_failure(folder, error)
        raise


def _released(job: FederatedJob, result: FederatedResult, fleet: Fleet) -> dict[int, ClientState]:
    """Return the personal layers of those clients whose own configuration releases them."""
    if not job.settings.personal_layers:
        return {}
    states: dict[int, ClientState] = {}
    for weights in ("raw", "ema"):
        config = ConfigRecord(
            {"round": job.config.num_rounds, "weights": weights, "run": result.run_key}
        )
        content = RecordDict({CONFIG: config})
        messages = [
            Message(content, node, f"query.{PERSONAL_LAYERS_QUERY}")
            for node, client in fleet.clients.items()
            if client in (states if weights == "ema" else result.connected)
        ]
        for reply in fleet.grid.send_and_receive(messages, timeout=job.config.round_timeout_s):
            client = fleet.clients[reply.metadata.src_node_id]
            if reply.has_error():
                logger.info("client %s keeps its layers: %s", client, reply.error.reason)
                states.pop(client, None)
                continue
            arrays = unpack_arrays(reply.content[ARRAYS])
            if weights == "raw":
                states[client] = ClientState(personal=arrays)
            else:
                states[client].personal_ema = arrays
    return states
