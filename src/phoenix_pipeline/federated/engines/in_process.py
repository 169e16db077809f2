"""Engine ``in_process``: the ClientApp is called in this process, several clients at a time.

Each worker is a thread that trains one client at a time. A client that hangs keeps its thread until
it ends by itself: a thread cannot be killed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.client_state import ClientStates, KeptStates
from phoenix_pipeline.federated.engines.local_grid import LocalGrid
from phoenix_pipeline.federated.fleet import Attendance, Fleet
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.run_state import CLIENTS_FOLDER
from phoenix_pipeline.federated.sites import Sites
from phoenix_pipeline.federated.stacked_clients import StackedClients, clients_at_a_time
from phoenix_pipeline.federated.work_plan import round_size
from phoenix_pipeline.hardware import available_cores, resolve_device


def train(job: FederatedJob, folder: Path, watch: Watch) -> FederatedResult:
    """Train over the clients of ``job``, all in this process."""
    device = resolve_device(job.device)
    kept = KeptStates(job.config.is_of_checkpoint, device)
    states = ClientStates(folder / CLIENTS_FOLDER, kept)
    sites = Sites.in_memory(job, device, states)
    sizes, cores = sites.sizes(), available_cores()
    workers = min(job.config.workers or (cores if device.type == "cpu" else 1), len(sizes))
    app = build_client_app(sites)
    threads = job.config.threads_per_client or max(1, cores // workers)
    roll_call = Attendance(job.config, sizes)
    in_a_round = round_size(len(sizes), job.config)
    together = clients_at_a_time(job.config, job.settings, device, in_a_round)
    stacked = StackedClients(sites, threads) if together > 1 else None
    with InProcessGrid(app, sizes, workers, threads, together, stacked, device) as grid:
        fleet = Fleet(grid, grid.clients, sizes, sites.state, roll_call, states.write_unwritten)
        return run_program(job, folder, fleet, watch)


class InProcessGrid(LocalGrid):
    """Calls ``client_app`` in ``workers``; ``stacked``: up to ``together`` messages at once."""

    def __init__(
        self,
        client_app: ClientApp,
        client_ids: Iterable[int],
        workers: int,
        threads: int,
        together: int = 1,
        stacked: StackedClients | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(client_ids, workers, together)
        self._app = client_app
        self._threads_per_worker = threads
        self._stacked = stacked
        self._device = device

    def _prepare_worker(self) -> None:
        torch.set_num_threads(self._threads_per_worker)
        if self._device is not None and self._device.type == "cuda" and self._workers > 1:
            # On one stream the workers' kernels would wait for each other.
            torch.cuda.set_stream(torch.cuda.Stream(self._device))

    def _call(self, message: Message, context: Context) -> Message:
        return self._app(message, context)

    def _call_together(
        self, messages: Sequence[Message], contexts: Sequence[Context]
    ) -> Iterable[Message]:
        training = all(m.metadata.message_type == MessageType.TRAIN for m in messages)
        if self._stacked and training and len(messages) > 1:
            return self._stacked(messages, contexts)
        return super()._call_together(messages, contexts)
