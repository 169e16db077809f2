"""Train one arm and write its models."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from phoenix_pipeline import __version__
from phoenix_pipeline.config import (
    FederationConfig,
    Group,
    ImagesConfig,
    ModelConfig,
    PartitionConfig,
    PersonalLayersConfig,
    RunConfig,
    SamplingConfig,
    SharedPoolConfig,
    ThresholdFilterConfig,
    TrainingConfig,
    settle_groups,
)
from phoenix_pipeline.families.provenance import DATA, TRAINED_WITH, fingerprint_data
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
    images: ImagesConfig,
    partition: PartitionConfig,
    checkpoints: Path,
) -> tuple[Callable[[Path], None], pd.DataFrame, pd.DataFrame]:
    """Return a function that writes the models, the table of rounds, and who trained on what.

    All three lie in the model's folder, which says whatever a reader may want to know of the
    training: settings, data and promise.
    """
    from phoenix_pipeline.federated.job import FederatedJob
    from phoenix_pipeline.metrics.monitoring import build_monitor_reference
    from phoenix_pipeline.pipelines.federated_training.time_estimate import announce_time

    model, training, federation = settle_groups(
        model, training, federation, train_images.image_size
    )
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
    held = trained_images(job, result)
    groups: dict[str, Group] = {
        "run": run,
        "images": images,
        "partition": partition,
        "shared_pool": pool,
        "model": model,
        "training": training,
        "federation": federation,
        "personal_layers": personal,
        "threshold_filter": rules,
        "sampling": sampling,
    }
    told = {name: group.model_dump(mode="json") for name, group in groups.items()}
    metadata = _describe(job, result, weights, told)
    metadata[DATA] = fingerprint_data(train_images, test_images, held)

    def write(folder: Path) -> None:
        _write(folder, result, job.settings, metadata)

    return write, result.rounds, held


def trained_images(job: "FederatedJob", result: "FederatedResult") -> pd.DataFrame:
    """Return a row per image of each client, as in ``client_images``.

    Of the sites of a deployment only the numbers of images are known here: image and label are -1.
    """
    if job.config.engine != "deployment":
        return job.client_images
    sites, counts = list(result.num_examples), list(result.num_examples.values())
    unknown = {"image_index": -1, "label": -1, "shared": False}
    return pd.DataFrame({"client_id": np.repeat(sites, counts)}).assign(**unknown)


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
    told: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return what stays with the models: settings, origin, and what left the clients."""
    epsilon = float(result.rounds["epsilon"].max())
    return {
        "weights": weights,
        "rounds": job.config.num_rounds,
        "settings": job.settings.model_dump(mode="json"),
        TRAINED_WITH: told,
        "disclosure": describe_disclosure(told, None if math.isnan(epsilon) else epsilon),
        "num_examples": dict(result.num_examples),
        "phoenix_pipeline": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
