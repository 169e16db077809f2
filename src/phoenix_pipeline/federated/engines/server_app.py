"""The ServerApp of a deployment: the SuperLink starts it; it runs the program over real nodes."""

from phoenix_pipeline.offline import stay_offline

stay_offline()  # In a process that Flower started, before diffusers reads the environment.

import logging
import sys
from pathlib import Path

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from phoenix_pipeline.federated.client_state import ClientState
from phoenix_pipeline.federated.engines.exchange import (
    JOB_FOLDER,
    ProgressFile,
    read_job,
    relayed_log,
    write_failure,
    write_result,
)
from phoenix_pipeline.federated.engines.node_roster import open_fleet
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.personal_upload import ask_for_layers
from phoenix_pipeline.federated.program import Watch, run_program

logger = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the job in ``job-folder`` and leave its result, or the reason for none, there."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    folder = Path(str(context.run_config[JOB_FOLDER]))
    progress = ProgressFile(folder)
    watch = Watch(
        lambda number, means: progress.append("round", number, means),
        lambda: progress.append("reply", 0, {}),
    )
    try:
        with relayed_log(progress):
            job = read_job(folder)
            fleet = open_fleet(grid, job, folder)
            result = run_program(job, folder, fleet, watch)
            write_result(folder, result, released_layers(job, result, fleet))
    except httpx.HTTPError:
        # The SuperLink is gone, or has ended this run: the Kedro node learns which from itself.
        raise
    except Exception as error:
        write_failure(folder, error)
        raise


def released_layers(
    job: FederatedJob, result: FederatedResult, fleet: Fleet
) -> dict[int, ClientState]:
    """Return personal layers of clients that release them; none under client-level privacy."""
    if not job.settings.personal_layers or job.config.differential_privacy.enabled:
        return {}
    raw = ask_for_layers(job, result.run_key, fleet, result.connected, "raw")
    states = {upload.client_id: ClientState(personal=upload.layers) for upload in raw}
    averages = {
        upload.client_id: upload.layers
        for upload in ask_for_layers(job, result.run_key, fleet, states, "ema")
    }
    for client, layers in averages.items():
        states[client].personal_ema = layers
    return {client: states[client] for client in averages}
