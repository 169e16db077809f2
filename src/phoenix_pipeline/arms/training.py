"""Train one arm, and write its models with all that a reader may want to know of the training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from phoenix_pipeline import __version__
from phoenix_pipeline.arms.arm_model import ArmModel, write_model_card
from phoenix_pipeline.arms.checks import check_clients
from phoenix_pipeline.arms.setup import check_privacy_of
from phoenix_pipeline.child_process import lent_process
from phoenix_pipeline.config import ArmSettings, Group, RunConfig
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.model_folder import write_models
from phoenix_pipeline.families.provenance import (
    NETWORK_SETTINGS,
    DataDigests,
    TrainingRecord,
    fingerprint_data,
)
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.latents.autoencoder import load_autoencoder, read_pool_images
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.reporting.disclosure import describe_disclosure

if TYPE_CHECKING:
    from phoenix_pipeline.federated.job import FederatedJob, FederatedResult

Weights = Literal["ema", "raw"]
OnRound = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class TrainedArm:
    """What belongs into the model's folder: ``write`` fills it; see :func:`trained_images`."""

    write: Callable[[Path], None]
    rounds: pd.DataFrame
    trained_images: pd.DataFrame


def train_arm(
    arm: str,
    train: ImageSet,
    test: ImageSet,
    client_images: pd.DataFrame,
    shared_pool: pd.DataFrame,
    settings: ArmSettings,
    run: RunConfig,
    checkpoints: Path,
    data_groups: Mapping[str, Group],
    on_round: OnRound | None = None,
) -> TrainedArm:
    """Train over the clients; go on from ``checkpoints`` if possible.

    ``test``: held-out images, which the threshold filter's reference is made from.
    ``client_images``: what each client trains on, and ``shared_pool``: each client's share of the
    pool: both of ``setup.assign_images``. ``data_groups``: how images and clients came about, by
    name; written beside the model. ``on_round``: told each round's means, restored rounds included.
    Raises FederationError: a round had too few usable replies; the last checkpoint stands.
    Raises SettingsError: clients or their privacy do not fit settings that set-up did not see.
    """
    model = ArmModel.of(train, settings, run)
    # This stage may run alone, after settings have changed.
    check_privacy_of(model)
    check_clients(model.settings.federation, client_images["client_id"].unique().tolist())
    job = _build_job(model, test, client_images, shared_pool, run)
    result = _run(job, arm, checkpoints, on_round or (lambda server_round, means: None))
    held = trained_images(job, result)
    groups = {"run": run, **data_groups}
    data = fingerprint_data(train, test, held)
    record = _describe(arm, job, result, model.settings, groups, data, _class_counts(job, held))

    def write(folder: Path) -> None:
        _write(folder, result, job, record)

    return TrainedArm(write, result.rounds, held)


def trained_images(job: "FederatedJob", result: "FederatedResult") -> pd.DataFrame:
    """Return a row per image of each client; -1 for those that the sites of a deployment hold."""
    if job.config.engine != "deployment":
        return job.client_images
    sites, counts = list(result.num_examples), list(result.num_examples.values())
    unknown = {"image_index": -1, "label": -1, "shared": False}
    return pd.DataFrame({"client_id": np.repeat(sites, counts)}).assign(**unknown)


def _class_counts(job: "FederatedJob", held: pd.DataFrame) -> dict[str, list[int]]:
    labels, classes = job.images.labels, len(job.settings.class_names)
    if not classes or labels is None or job.config.engine == "deployment":
        return {}
    return {
        str(client): np.bincount(labels[rows], minlength=classes).tolist()
        for client, rows in held.groupby("client_id")["image_index"]
    }


def _weights(settings: ArmSettings) -> Weights:
    averaged = settings.sampling.weights == "ema" and settings.training.ema_horizon > 0
    return "ema" if averaged else "raw"


def _build_job(
    model: ArmModel,
    test: ImageSet,
    client_images: pd.DataFrame,
    shared_pool: pd.DataFrame,
    run: RunConfig,
) -> "FederatedJob":
    from phoenix_pipeline.federated.job import FederatedJob
    from phoenix_pipeline.federated.own_models import OwnModels
    from phoenix_pipeline.metrics.monitoring import build_monitor_reference

    settings = model.settings
    filtering = settings.threshold_filter
    return FederatedJob(
        images=model.train,
        client_images=client_images,
        config=settings.federation,
        settings=model.client_settings(),
        device=run.device,
        threshold_filter=filtering,
        reference=build_monitor_reference(test, run.seed) if filtering.enabled else None,
        pool=shared_pool["image_index"].unique(),
        warmup_steps=settings.shared_pool.warmup_steps,
        final_average=_weights(settings) if settings.personal_layers.final_average else None,
        start=model.load_start(),
        own=OwnModels.of(settings.model),
    )


def _run(job: "FederatedJob", arm: str, checkpoints: Path, on_round: OnRound) -> "FederatedResult":
    clients = job.client_images["client_id"].nunique()
    with progress_bar(arm, job.config.num_rounds * clients) as advance:
        child = lent_process.get()
        if child is None:
            return _train(job, checkpoints, False, on_round, advance)
        result: FederatedResult = child.call(
            _train, job, checkpoints, True, tell=(on_round, advance), log_as=arm
        )
        return result


def _train(
    job: "FederatedJob",
    checkpoints: Path,
    elsewhere: bool,
    on_round: OnRound,
    advance: Callable[[int], None],
) -> "FederatedResult":
    """Train; ``elsewhere``: in another process than the one that goes on with the result."""
    from phoenix_pipeline.arms.time_estimate import announce_time
    from phoenix_pipeline.federated.server import train_federated

    announce_time(job)
    result = train_federated(job, checkpoints, on_round, on_reply=lambda: advance(1))
    return result.by_itself() if elsewhere else result


def _describe(
    arm: str,
    job: "FederatedJob",
    result: "FederatedResult",
    settings: ArmSettings,
    data_groups: Mapping[str, Group],
    data: DataDigests,
    class_counts: dict[str, list[int]],
) -> TrainingRecord:
    """Return what stays with the models: settings, origin, and what left the clients."""
    groups = {**data_groups, **dict(settings)}
    epsilon = float(result.rounds["epsilon"].max())
    record: TrainingRecord = {
        "arm": arm,
        "weights": _weights(settings),
        "rounds": job.config.num_rounds,
        "settings": NETWORK_SETTINGS.validate_python(job.settings.model_dump(mode="json")),
        "trained_with": {name: group.model_dump(mode="json") for name, group in groups.items()},
        "data": data,
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "disclosure": describe_disclosure(
            settings, None if math.isnan(epsilon) else epsilon, _encoded_pool(job)
        ),
        "num_examples": {str(client): count for client, count in result.num_examples.items()},
        "phoenix_pipeline": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if class_counts:
        record["class_counts"] = class_counts
    return record


def _encoded_pool(job: "FederatedJob") -> int | None:
    """Return how many images of clients the autoencoder was trained on, if it says so."""
    return read_pool_images(job.own.autoencoder) if job.own.autoencoder else None


def _write(
    folder: Path, result: "FederatedResult", job: "FederatedJob", record: TrainingRecord
) -> None:
    from phoenix_pipeline.federated.personal_layers import samples_are_personal

    settings, averaged = job.settings, record["weights"] == "ema"
    shared = result.ema if averaged else result.raw
    personal = samples_are_personal(settings.personal_layers, settings.model)
    network = settings.open_network(job.own.base)
    body = {**family_of(settings.model).arrays_at_rest(network), **shared}
    completing = result.averaged_personal or {}
    network.load_state_dict({**network.state_dict(), **shared, **completing})
    has_global = not personal or result.averaged_personal is not None
    states = ((c, result.client_state(c)) for c in (result.connected if personal else ()))
    layers = ((c, s.personal_ema if averaged else s.personal) for c, s in states)
    folder_of_latents = job.own.autoencoder
    autoencoder = load_autoencoder(folder_of_latents) if folder_of_latents else None
    write_models(folder, body, layers, network if has_global else None, record, autoencoder)
    write_model_card(folder)
