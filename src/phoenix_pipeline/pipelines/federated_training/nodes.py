"""Train one arm and write its models."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from phoenix_pipeline import __version__
from phoenix_pipeline.config import (
    FederationConfig,
    Group,
    ModelConfig,
    PersonalLayersConfig,
    RunConfig,
    SamplingConfig,
    SharedPoolConfig,
    ThresholdFilterConfig,
    TrainingConfig,
    settle_federation,
    settle_model,
    settle_training,
)
from phoenix_pipeline.framework.tracking import round_logger
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.pipelines.progress import progress_bar
from phoenix_pipeline.pipelines.shared_pool.nodes import client_settings
from phoenix_pipeline.reporting.disclosure import describe_disclosure

Weights = Literal["ema", "raw"]

if TYPE_CHECKING:
    from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
    from phoenix_pipeline.federated.records import ClientSettings


def train(
    train_images: ImageSet,
    test_images: ImageSet,
    client_images: pd.DataFrame,
    shared_pool: pd.DataFrame,
    model_summary: dict[str, Any],
    model: ModelConfig,
    training: TrainingConfig,
    federation: FederationConfig,
    personal: PersonalLayersConfig,
    rules: ThresholdFilterConfig,
    pool: SharedPoolConfig,
    sampling: SamplingConfig,
    run: RunConfig,
    checkpoints: Path,
) -> tuple[Callable[[Path], None], pd.DataFrame]:
    """Return a function that writes the models into a folder, and the table of rounds."""
    from phoenix_pipeline.federated.job import FederatedJob
    from phoenix_pipeline.metrics.monitoring import build_monitor_reference
    from phoenix_pipeline.pipelines.federated_training.time_estimate import announce_time

    model = settle_model(model, train_images.image_size)
    training = settle_training(training, model, train_images.image_size)
    federation = settle_federation(federation, train_images.image_size)
    weights: Weights = "ema" if sampling.weights == "ema" and training.ema_horizon > 0 else "raw"
    job = FederatedJob(
        images=train_images,
        client_images=client_images,
        config=federation,
        settings=client_settings(model_summary, model, training, federation, rules, run),
        device=run.device,
        threshold_filter=rules,
        reference=build_monitor_reference(test_images, run.seed) if rules.enabled else None,
        pool=shared_pool["image_index"].unique(),
        warmup_steps=pool.warmup_steps,
        final_average=weights if personal.final_average else None,
    )
    announce_time(job, checkpoints.name)
    result = _run(job, checkpoints)
    metadata = _describe(job, result, weights, personal, pool)
    return lambda folder: _write(folder, result, job.settings, metadata), result.rounds


def _run(job: "FederatedJob", checkpoints: Path) -> "FederatedResult":
    """Train, with a bar of the replies and a line per round for the tracker."""
    from phoenix_pipeline.federated.server import train_federated

    clients = job.client_images["client_id"].nunique()
    with progress_bar("training", job.config.num_rounds * clients) as advance:
        return train_federated(
            job,
            checkpoints,
            on_round=round_logger(),
            on_reply=lambda server_round, row: advance(1),
        )


def _describe(
    job: "FederatedJob",
    result: "FederatedResult",
    weights: Weights,
    personal: PersonalLayersConfig,
    pool: SharedPoolConfig,
) -> dict[str, Any]:
    """Return what stays with the models: settings, origin, and what left the clients."""
    return {
        "weights": weights,
        "rounds": job.config.num_rounds,
        "settings": job.settings.model_dump(mode="json"),
        "disclosure": _disclosure(
            result.rounds["epsilon"].max(),
            model=job.settings.model,
            training=job.settings.training,
            federation=job.config,
            personal_layers=personal,
            threshold_filter=job.threshold_filter,
            shared_pool=pool,
        ),
        "num_examples": dict(result.num_examples),
        "phoenix_pipeline": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _disclosure(epsilon: float, **groups: Group) -> list[str]:
    """Return what left the clients, as sentences that stay with the model."""
    plain = {name: group.model_dump(mode="json") for name, group in groups.items()}
    return describe_disclosure(plain, None if math.isnan(epsilon) else epsilon)


def _write(
    folder: Path, result: "FederatedResult", settings: "ClientSettings", metadata: dict[str, Any]
) -> None:
    """Write the global model, or the shared body and what completes it at each client."""
    from phoenix_pipeline.families import family_of
    from phoenix_pipeline.families.model_folder import write_models
    from phoenix_pipeline.federated.personal_layers import samples_are_personal

    averaged = metadata["weights"] == "ema"
    shared = result.ema if averaged else result.raw
    personal = samples_are_personal(settings.personal_layers)
    network = None
    if not personal or result.averaged_personal is not None:
        network = family_of(settings.model).build(
            settings.model, settings.channels, settings.image_size, settings.seed
        )
        completing = result.averaged_personal or {}
        network.load_state_dict({**network.state_dict(), **shared, **completing})
    states = ((c, result.client_state(c)) for c in (result.connected if personal else ()))
    layers = ((c, s.personal_ema if averaged else s.personal) for c, s in states)
    write_models(folder, shared, layers, network, metadata)
