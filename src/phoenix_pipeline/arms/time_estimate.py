"""How long an arm's training will take on this machine: one step is measured before all others."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.server import count_steps
from phoenix_pipeline.federated.stacked_clients import choose_clients_at_a_time
from phoenix_pipeline.federated.work_plan import round_size
from phoenix_pipeline.hardware import available_cores, resolve_device
from phoenix_pipeline.optimization.work import ClientTask, LocalWork

logger = logging.getLogger(__name__)

# From here on a CPU's budget leaves samples coarse (docs/own-data.md).
_LARGE_SIDE = 64


def announce_time(job: FederatedJob) -> None:
    """Log the expected time of training, where the machines are here."""
    if job.config.engine == "deployment":
        return
    steps, device = count_steps(job), resolve_device(job.device)
    at_once, threads, together = _concurrency(job, device)
    with _threads(threads):
        seconds = _time_step(job, device, together)
    side, batch = job.settings.trained_shape[1], job.settings.training.batch_size
    stacked = f", {together} clients as one program" if together > 1 else ""
    line = (
        f"about {show_duration(steps * seconds / at_once)} of training on this machine "
        f"({steps:,} steps of {batch} images, {seconds:.2g} s each{stacked}, {at_once} at a time "
        f"on {device.type}), sampling and scoring not counted"
    )
    if device.type == "cpu" and side >= _LARGE_SIDE:
        line += (
            f"; {side}-pixel images without a GPU: expect coarse samples; better ones take longer "
            "training or smaller images (docs/own-data.md)"
        )
        logger.warning("%s", line)
    else:
        logger.info("%s", line)


def show_duration(seconds: float) -> str:
    """Return seconds as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _concurrency(job: FederatedJob, device: torch.device) -> tuple[int, int, int]:
    """Return how many workers there are, the threads of each, and the clients it stacks."""
    clients = job.client_images["client_id"].nunique()
    cores = available_cores()
    at_once = min(job.config.workers or (cores if device.type == "cpu" else 1), clients)
    each = math.ceil(round_size(clients, job.config) / at_once)
    together = 1
    if job.config.engine == "in_process":
        together, _ = choose_clients_at_a_time(job.config, job.settings, device, each)
    return at_once, job.config.threads_per_client or max(1, cores // at_once), together


def _time_step(job: FederatedJob, device: torch.device, together: int) -> float:
    """Return the seconds of a client's step, of which ``together`` are one program's.

    The first run of each does not count. A stack is laid out and read at each run, which takes
    longer than a step on a GPU: two more steps tell what one takes.
    """
    settings = job.settings
    images = _some_images(job).to(device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    noise = 1.0 if settings.training.dp_sgd.enabled else None
    family = family_of(settings.model)

    def time_run(network: nn.Module, steps: int) -> float:
        work = LocalWork(steps, 0.0, 0.0, seed=0, noise_multiplier=noise)
        task = ClientTask(images, work, labels=labels)
        started = time.perf_counter()
        if together > 1:
            weights = {name: array.clone() for name, array in network.state_dict().items()}
            tasks = [replace(task, weights=weights)] * together
            family.train_stacked(network, tasks, settings.model, settings.training)
        else:
            family.train_locally(network, task, settings.model, settings.training)
        return time.perf_counter() - started

    with torch.random.fork_rng(devices=[]):
        network = settings.build_network().to(device)
        if settings.training.channels_last:
            network.to(memory_format=torch.channels_last)
        time_run(network, 1)
        one = time_run(network, 1)
        if together == 1:
            return one
        three = time_run(network, 3)
        # On a machine that is busy for a moment, one step may take as long as three.
        each = (three - one) / 2 if three > one else three / 3
        return each / together


def _some_images(job: FederatedJob) -> torch.Tensor:
    settings = job.settings
    if settings.latents is None:
        return torch.from_numpy(job.images.images[: settings.training.batch_size])
    mirrored = (2,) if settings.training.horizontal_flip else ()
    return torch.zeros(settings.training.batch_size, *mirrored, *settings.trained_shape)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
