"""Runs the rounds of one arm: initial weights, strategy, server-side EMA, checkpoints."""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch
from flwr.app import ArrayRecord, MetricRecord

from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.client_app import build_client_app
from phoenix_pipeline.federated.engines.in_process import InProcessGrid
from phoenix_pipeline.federated.final_average import average_personal_layers
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.monitoring import Monitor
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.federated.records import pack_arrays, unpack_arrays
from phoenix_pipeline.federated.round_table import disconnected, round_means
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.sites import InMemorySites
from phoenix_pipeline.federated.strategy import OnReply, PhoenixStrategy
from phoenix_pipeline.federated.warm_up import warm_up
from phoenix_pipeline.hardware import available_cores, resolve_device

logger = logging.getLogger(__name__)

OnRound = Callable[[int, Mapping[str, float]], None]


def train_federated(
    job: FederatedJob,
    folder: Path,
    on_round: OnRound | None = None,
    on_reply: OnReply | None = None,
) -> FederatedResult:
    """Train over the clients of ``job``; resume from ``folder`` if possible.

    Args:
        job: images, clients and settings.
        folder: checkpoints and client states of this arm.
        on_round: told each round's means, restored rounds included.
        on_reply: told every reply as it comes.

    Raises:
        FederationError: a round had too few usable replies; the last checkpoint stands.
    """
    device = resolve_device(job.device)
    sites = InMemorySites(job.images, job.client_images, device, folder / "clients")
    run = _begin(job, folder, device)
    if on_round:
        for number in range(1, run.rounds_done + 1):
            on_round(number, round_means(run.rows, number))
    averaged = None
    with _open_grid(job, sites, device) as grid:
        _run_rounds(job, run, grid, sites.sizes(), on_round, on_reply)
        connected = sorted(sites.sizes().keys() - disconnected(run.rows))
        if job.settings.personal_layers and job.final_average:
            averaged = average_personal_layers(
                grid, grid.clients, connected, run, job.final_average
            )
    return FederatedResult(
        run.raw, run.ema, pd.DataFrame(run.rows), tuple(connected), sites.state, averaged
    )


def _begin(job: FederatedJob, folder: Path, device: torch.device) -> RunState:
    """Return the run, resumed or new and warmed up."""
    settings = job.settings
    network = family_of(settings.model).build(
        settings.model, settings.channels, settings.image_size, settings.seed
    )
    shared, _ = split_personal(network.state_dict(), settings.personal_layers)
    run = RunState(folder / "server", job.identity(), shared, settings.training.ema_horizon)
    if job.config.resume and run.resume():
        logger.info("continuing after round %s of %s", run.rounds_done, job.config.num_rounds)
        return run
    shutil.rmtree(folder, ignore_errors=True)
    if job.warmup_steps:
        row = warm_up(network, job, device)
        state = {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}
        shared, personal = split_personal(state, settings.personal_layers)
        run.start_from(shared, personal, row)
        run.save()
    return run


def _open_grid(job: FederatedJob, sites: InMemorySites, device: torch.device) -> InProcessGrid:
    cores, clients = available_cores(), sites.sizes()
    workers = min(job.config.workers or (cores if device.type == "cpu" else 1), len(clients))
    return InProcessGrid(build_client_app(sites), clients, workers, max(1, cores // workers))


def _run_rounds(
    job: FederatedJob,
    run: RunState,
    grid: InProcessGrid,
    sizes: Mapping[int, int],
    on_round: OnRound | None,
    on_reply: OnReply | None,
) -> None:
    """Run the rounds that are still to do."""
    config = job.config
    if run.rounds_done == config.num_rounds:
        return
    monitor = Monitor(job.threshold_filter, job.reference) if job.reference else None
    strategy = PhoenixStrategy(config, job.settings, grid.clients, sizes, run, monitor, on_reply)

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round == 0:
            return None
        run.finish_round(unpack_arrays(arrays))
        done = run.rounds_done
        if done % config.checkpoint_every == 0 or done == config.num_rounds:
            run.save()
        means = round_means(run.rows, done)
        _log_round(means, done, config.num_rounds)
        if on_round:
            on_round(done, means)
        return None

    strategy.start(
        grid,
        pack_arrays(run.raw),
        num_rounds=config.num_rounds - run.rounds_done,
        timeout=config.round_timeout_s,
        evaluate_fn=after_round,
    )


def _log_round(means: Mapping[str, float], done: int, num_rounds: int) -> None:
    logger.info(
        "round %s/%s: loss %.4f, %s clients, %.1f s of training",
        done,
        num_rounds,
        means["loss"],
        int(means["clients"]),
        means["seconds"],
    )
