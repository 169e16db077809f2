"""Engine ``ray``: clients run in the Ray actors of Flower's simulation engine.

Flower's entry point for Python, ``run_simulation``, is deprecated, runs the server in a second
thread and asks for replies every few seconds. What is used here is what it stands on: its actor,
and its rule of how many fit. Images reach the actors by the path of a memory-mapped file.
"""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from phoenix_pipeline.config import RayConfig
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.extras import how_to_install
from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.engines.local_grid import LocalGrid, Task
from phoenix_pipeline.federated.fleet import Attendance, Fleet
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.own_models import OwnModels
from phoenix_pipeline.federated.program import Watch, run_program
from phoenix_pipeline.federated.run_state import CLIENTS_FOLDER
from phoenix_pipeline.federated.sites import Sites, write_sites
from phoenix_pipeline.hardware import available_cores, resolve_device
from phoenix_pipeline.offline import VARIABLES, stay_offline

logger = logging.getLogger(__name__)

_IMAGES_FOLDER = "client_images"


def train(job: FederatedJob, folder: Path, watch: Watch) -> FederatedResult:
    """Train in Ray actors; raises SettingsError without Ray, FederationError without a cluster."""
    if find_spec("ray") is None:
        raise SettingsError(
            "federation.engine is ray, but Ray is not installed; install it by "
            f"{how_to_install('ray')}, or set federation.engine: in_process"
        )
    config = job.config.ray
    device = _client_device(job)
    images, states = (folder.resolve() / name for name in (_IMAGES_FOLDER, CLIENTS_FOLDER))
    write_sites(images, job)
    sites = Sites.in_folder(images, torch.device("cpu"), ClientStates(states))
    sizes = sites.sizes()
    roll_call = Attendance(job.config, sizes)
    try:
        with _cluster(config, len(sizes), job.config.workers) as workers:
            threads = max(1, int(config.num_cpus_per_client))
            open_app = partial(_client_app, images, states, device, threads, job.own)
            with RayGrid(open_app, sizes, workers, config) as grid:
                fleet = Fleet(grid, grid.clients, sizes, sites.state, roll_call)
                return run_program(job, folder, fleet, watch)
    finally:
        shutil.rmtree(images, ignore_errors=True)


class RayGrid(LocalGrid):
    """Sends every message to an actor; each worker thread waits for one actor of its own."""

    def __init__(
        self,
        open_app: Callable[[], ClientApp],
        client_ids: Iterable[int],
        workers: int,
        config: RayConfig,
    ) -> None:
        super().__init__(client_ids, workers)
        self._open_app = open_app
        self._resources = _resources(config)
        self._own = threading.local()
        self._at_work: dict[int, Any] = {}

    def _call(self, message: Message, context: Context) -> Message:
        import ray
        from flwr.simulation.ray_transport.ray_actor import ClientAppActor

        if getattr(self._own, "actor", None) is None:
            self._own.actor = ClientAppActor.options(**self._resources).remote()
        client = self._clients[context.node_id]
        self._at_work[context.node_id] = self._own.actor
        try:
            reply: Message = ray.get(
                self._own.actor.run.remote(self._open_app, message, str(client), context)
            )[1]
            return reply
        except ray.exceptions.RayActorError:
            self._own.actor = None
            reason = "its process ended before it replied"
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
        finally:
            self._at_work.pop(context.node_id, None)
        return Message(Error(ErrorCode.CLIENT_APP_CRASHED, reason), reply_to=message)

    def _abandon(self, task: Task) -> bool:
        """Kill the actor: unlike a thread it can be, and its CPUs are free again."""
        import ray

        for message in task.messages:
            if actor := self._at_work.get(message.metadata.dst_node_id):
                ray.kill(actor)
        return True


@lru_cache(maxsize=1)
def _client_app(images: Path, states: Path, device: str, threads: int, own: OwnModels) -> ClientApp:
    """Return an actor's ClientApp; it and its network are kept from message to message."""
    torch.set_num_threads(threads)
    sites = Sites.in_folder(images, resolve_device(device), ClientStates(states), own)
    return build_client_app(sites)


@contextmanager
def _cluster(config: RayConfig, clients: int, most: int | None) -> Iterator[int]:
    """Be connected to Ray for the block; give how many actors to keep at work."""
    stay_offline()
    # Clients without a GPU are told to use the CPU; Ray need not hide GPUs, and warns that it will.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from flwr.simulation.ray_transport.ray_actor import pool_size_from_resources

    started = not ray.is_initialized()
    if started:
        _start(config.address)
    try:
        resources = _resources(config)
        try:
            capacity = pool_size_from_resources(resources)
        except ValueError as error:
            there = ray.cluster_resources()
            raise SettingsError(
                f"no client fits: federation.ray asks for {resources['num_cpus']:g} CPUs and "
                f"{resources['num_gpus']:g} GPUs per client, and Ray has {there.get('CPU', 0):g} "
                f"and {there.get('GPU', 0):g}; lower "
                "federation.ray.num_cpus_per_client or federation.ray.num_gpus_per_client"
            ) from error
        yield min(capacity, clients, most or capacity)
    finally:
        if started:
            ray.shutdown()


def _start(address: str | None) -> None:
    """Connect to the cluster at ``address`` or start one; whatever goes wrong is one line."""
    import ray

    options: dict[str, Any] = {"address": address}
    if address is None:
        cores = available_cores()
        options = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    python_path = os.pathsep.join(filter(None, sys.path))
    try:
        ray.init(
            **options,
            runtime_env={"env_vars": {"PYTHONPATH": python_path, **VARIABLES}},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except Exception as error:  # Ray raises bare exceptions where a process of its own is late.
        reason = str(error).strip().splitlines()[0]
        raise FederationError(
            f"Ray did not start or answer, federation.ray.address is {address!r}: {reason}; null "
            "starts it on this machine, and federation.engine: in_process needs no Ray"
        ) from error


def _resources(config: RayConfig) -> dict[str, float]:
    return {"num_cpus": config.num_cpus_per_client, "num_gpus": config.num_gpus_per_client}


def _client_device(job: FederatedJob) -> str:
    """Return where clients train: Ray shows an actor the GPUs that it was given, and no others."""
    if job.config.ray.num_gpus_per_client > 0:
        return "cpu" if job.device == "cpu" else "cuda"
    if job.device not in ("auto", "cpu"):
        raise SettingsError(
            f"run.device is {job.device!r}, but federation.ray.num_gpus_per_client is 0, so that "
            "clients see no GPU; set it above 0, or run.device: cpu"
        )
    return "cpu"
