"""A federation's program on every engine: initial weights, warm-up, rounds, checkpoints."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from torch import nn

from phoenix_pipeline.config import DpSgdConfig
from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.fleet import Fleet
from phoenix_pipeline.federated.history import (
    SERVER,
    WARM_UP_ROUND,
    Row,
    new_row,
    with_link_seconds,
)
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.own_models import as_trained
from phoenix_pipeline.federated.personal_layers import split_personal
from phoenix_pipeline.federated.personal_upload import average_personal_layers
from phoenix_pipeline.federated.privacy.client_level import ClientLevelPrivacy
from phoenix_pipeline.federated.records import pack_weights, unpack_weights
from phoenix_pipeline.federated.round_teller import OnRound, RoundTeller, keep_snapshot
from phoenix_pipeline.federated.run_state import CLIENTS_FOLDER, SERVER_FOLDER, RunState
from phoenix_pipeline.federated.strategy import OnReply, PhoenixStrategy
from phoenix_pipeline.federated.threshold_filter import Monitor
from phoenix_pipeline.federated.wire import Layout
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.optimization.work import ClientTask, LocalWork
from phoenix_pipeline.quantities import counted
from phoenix_pipeline.seeding import derive_seed
from phoenix_pipeline.strategies import Strategies
from phoenix_pipeline.strategies.strategy import beside

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """Who is told of each round's means, restored ones included, and at every reply."""

    on_round: OnRound | None = None
    on_reply: OnReply | None = None


def run_program(job: FederatedJob, folder: Path, fleet: Fleet, watch: Watch) -> FederatedResult:
    """Run all rounds over ``fleet``; resume from ``folder`` if possible.

    Raises FederationError: a round had too few usable replies; the last checkpoint stands.
    Raises SettingsError: the aggregation rule needs more clients than train in a round.
    Raises CheckpointError: ``folder`` has an unfinished run of other settings; nothing was touched.
    """
    run = _begin(job, folder, resolve_device(job.device))
    teller = RoundTeller(run, job.config.link, job.config.num_rounds, watch.on_round)
    for number in range(1, run.rounds_done + 1):
        teller.tell(number)
    _run_rounds(job, run, fleet, watch, teller)
    if job.config.differential_privacy.is_central:
        private = ClientLevelPrivacy.of(job.config, len(fleet.sizes))
        run.history.raise_epsilon(private.epsilon(run.rounds_done))
    connected = _with_a_model(job, run, fleet)
    averaged = None
    if job.settings.personal_layers and job.final_average:
        averaged = average_personal_layers(job, fleet, connected, run, job.final_average)
    teller.finish()
    return FederatedResult(
        raw=run.raw,
        ema=run.ema,
        rounds=with_link_seconds(run.history.table(), job.config.link),
        connected=tuple(connected),
        client_state=fleet.client_state,
        averaged_personal=averaged,
        run_key=run.key,
        num_examples=dict(fleet.sizes),
    )


def _begin(job: FederatedJob, folder: Path, device: torch.device) -> RunState:
    settings = job.settings
    network = settings.open_network(job.own.base)
    if job.start is not None:
        network.load_state_dict(dict(job.start))
    shared, personal = split_personal(network.state_dict(), settings.personal_layers)
    run = RunState(folder / SERVER_FOLDER, job.identity(), shared, settings.training.ema_horizon)
    relative = settings.compression.down.relative_to == "last_broadcast"
    if job.start is not None:
        run.initial_personal = {name: tensor.clone() for name, tensor in personal.items()}
    elif relative and job.config.engine != "deployment":
        # Clients hold the initial weights; other machines may round them otherwise.
        run.held.start(beside(shared, Strategies.of(settings.strategies).told_like(shared)))
    if job.config.resume and run.resume():
        logger.info("continuing after round %s of %s", run.rounds_done, job.config.num_rounds)
        return run
    if (folder / SERVER_FOLDER).exists():
        logger.info("starting over: what is stored in %s is removed", folder)
    for part in (SERVER_FOLDER, CLIENTS_FOLDER):
        shutil.rmtree(folder / part, ignore_errors=True)
    if job.warmup_steps:
        row = warm_up(network, job, device)
        state = {name: tensor.cpu().clone() for name, tensor in network.state_dict().items()}
        shared, personal = split_personal(state, settings.personal_layers)
        run.start_from(shared, personal, row)
    keep_snapshot(job, run)
    of_images = settings.training.dp_sgd.enabled
    private = of_images or job.config.differential_privacy.enabled
    # A private run that is cut short in round 1 has spent, and must find its ledger again.
    if job.warmup_steps or (private and job.config.has_secret_noise):
        run.save()
    return run


def _run_rounds(
    job: FederatedJob, run: RunState, fleet: Fleet, watch: Watch, teller: RoundTeller
) -> None:
    config = job.config
    if run.rounds_done == config.num_rounds:
        return
    monitor = Monitor(job.threshold_filter, job.reference) if job.reference else None
    strategy = PhoenixStrategy(
        config,
        job.settings,
        fleet.clients,
        fleet.sizes,
        run,
        monitor,
        watch.on_reply,
        fleet.roll_call,
    )

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round == 0:
            return None
        weights = unpack_weights(arrays, Layout.of(run.raw))
        run.finish_round({name: tensor.clone() for name, tensor in weights.items()})
        done = run.rounds_done
        if config.is_of_checkpoint(done):
            fleet.write_states(run.oldest_checkpoint)
            run.save()
        keep_snapshot(job, run)
        _log_round(teller.tell(done), done, config.num_rounds)
        return None

    strategy.start(
        cast(Grid, fleet.grid),
        pack_weights(run.raw),
        num_rounds=config.num_rounds - run.rounds_done,
        timeout=config.round_timeout_s,
        evaluate_fn=after_round,
    )


def _with_a_model(job: FederatedJob, run: RunState, fleet: Fleet) -> list[int]:
    """Return the clients that are connected at the end and, with personal layers, trained some."""
    connected = fleet.sizes.keys() - run.history.disconnected
    if not job.settings.personal_layers:
        return sorted(connected)
    if never := sorted(connected - run.history.trained):
        logger.warning(
            "%s of %s clients never trained and have no model of their own: %s first",
            len(never),
            len(fleet.sizes),
            never[0],
        )
    return sorted(connected & run.history.trained)


def _log_round(means: Mapping[str, float], done: int, num_rounds: int) -> None:
    logger.info(
        "round %s/%s: loss %.4f, %s, %.1f s of training in all",
        done,
        num_rounds,
        means["loss"],
        counted(int(means["clients"]), "client"),
        means["seconds"],
    )


def warm_up(network: nn.Module, job: FederatedJob, device: torch.device) -> Row:
    """Train ``network`` on the pool, at the peak rate, for ``job.warmup_steps``; return a row."""
    if job.pool is None:
        raise ValueError("a warm-up needs a pool")
    settings = job.settings
    peak, labels = settings.training.lr_warmup, None
    if settings.class_names and job.images.labels is not None:
        labels = torch.from_numpy(job.images.labels[job.pool]).to(device)
    images = job.images.images[job.pool]
    task = ClientTask(
        as_trained(images, settings, job.own, device),
        LocalWork(job.warmup_steps, peak, peak, derive_seed(settings.seed, "warm_up")),
        labels=labels,
    )
    # The pool was given away before: noise would hide nothing of it.
    training = settings.training.model_copy(update={"dp_sgd": DpSgdConfig()})
    family = family_of(settings.model)
    result = family.train_locally(network.to(device), task, settings.model, training)
    logger.info("warm-up on %s pool images: loss %.4f", len(job.pool), result.loss)
    return {
        **new_row(WARM_UP_ROUND, SERVER, len(job.pool)),
        "images_trained": result.images_trained,
        "loss": result.loss,
        "seconds": result.seconds,
    }
