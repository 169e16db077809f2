"""Decide what each client trains on, and refuse settings that cannot work before any training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from phoenix_pipeline.config import (
    FederationConfig,
    ModelConfig,
    PersonalLayersConfig,
    RunConfig,
    SamplingConfig,
    SharedPoolConfig,
    ThresholdFilterConfig,
    TrainingConfig,
    list_settled,
    settle_groups,
)
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.partitioning.shared_pool import draw_shared_pool
from phoenix_pipeline.pipelines.shared_pool.checks import (
    check_clients,
    check_personalization,
    check_pool,
    check_stored,
    check_threshold,
)
from phoenix_pipeline.reporting.figure_style import draw_sentence
from phoenix_pipeline.reporting.partition_figure import draw_shared_pool as draw_shared_pool_figure

if TYPE_CHECKING:
    from torch import nn

    from phoenix_pipeline.federated.records import ClientSettings


def assign_images(
    train: ImageSet,
    partition: pd.DataFrame,
    config: SharedPoolConfig,
    federation: FederationConfig,
    run: RunConfig,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each client's training images and each client's share of the pool.

    With ``federation.pooled`` one client, number 0, holds what all clients hold together.

    Raises:
        SettingsError: there are too few clients for ``federation``.
    """
    pool = draw_shared_pool(partition, config, run.seed, train.num_classes)
    training = pool.training
    if federation.pooled:
        training = training.drop_duplicates("image_index").assign(client_id=0)
    # In a deployment the nodes are the clients, and are counted when they have connected.
    if federation.engine != "deployment":
        check_clients(federation, training["client_id"].unique().tolist())
    return training, pool.shares


def plot_clients(
    train: ImageSet, client_images: pd.DataFrame, federation: FederationConfig
) -> Figure:
    """Draw what each client trains on: its own images, and those that it received."""
    if federation.engine == "deployment":
        return draw_sentence("The sites are the clients; the report shows those that took part.")
    return draw_shared_pool_figure(client_images, train.class_names)


def check_arm(
    train: ImageSet,
    test: ImageSet,
    model: ModelConfig,
    training: TrainingConfig,
    federation: FederationConfig,
    personal: PersonalLayersConfig,
    rules: ThresholdFilterConfig,
    pool: SharedPoolConfig,
    sampling: SamplingConfig,
    run: RunConfig,
    checkpoints: Path,
) -> dict[str, Any]:
    """Build the model once and check what only the images can tell; return what it is.

    ``settled`` in it is what each setting of ``auto`` became.

    Raises:
        SettingsError: the model does not fit the images, or settings contradict each other.
        CheckpointError: ``checkpoints`` has an unfinished run of other settings.
    """
    from phoenix_pipeline.federated.privacy.checks import check_privacy

    given = {"model": model, "training": training, "federation": federation}
    model, training, federation = settle_groups(model, training, federation, train.image_size)
    network = _build(train, model, sampling, run)
    layers = _layers_that_stay(network, model, personal, federation)
    check_privacy(
        federation,
        training,
        network,
        filters_clients=rules.enabled,
        uploads_personal=personal.final_average
        or (bool(layers) and federation.waits_for_released_layers),
        shares_images=pool.beta > 0 and pool.source == "clients",
    )
    check_personalization(personal, rules, federation, layers)
    check_pool(pool)
    check_threshold(rules, train, test, run)
    summary = _summarise(network, layers, train)
    settled = {"model": model, "training": training, "federation": federation}
    summary["settled"] = list_settled(given, settled)
    if federation.resume:
        settings = client_settings(summary, model, training, federation, rules, run)
        check_stored(checkpoints, settings, federation, rules, pool)
    return summary


def _build(
    train: ImageSet, model: ModelConfig, sampling: SamplingConfig, run: RunConfig
) -> "nn.Module":
    from phoenix_pipeline.families import family_of

    resolve_device(run.device)
    family = family_of(model)
    family.check(model, sampling, train.channels, train.image_size)
    return family.build(model, train.channels, train.image_size, run.seed)


def _layers_that_stay(
    network: "nn.Module",
    model: ModelConfig,
    personal: PersonalLayersConfig,
    federation: FederationConfig,
) -> tuple[str, ...]:
    """Return the prefixes of what clients keep, as personal layers or by a partial update."""
    from phoenix_pipeline.federated.compression.partial_updates import layers_that_stay
    from phoenix_pipeline.federated.personal_layers import personal_prefixes

    names = network.state_dict()
    layers = personal_prefixes(personal, model, names)
    return layers_that_stay(layers, federation, model, names)


def _summarise(network: "nn.Module", layers: tuple[str, ...], train: ImageSet) -> dict[str, Any]:
    from phoenix_pipeline.federated.personal_layers import is_personal

    sizes = {name: weight.numel() for name, weight in network.named_parameters()}
    return {
        "num_parameters": sum(sizes.values()),
        "num_personal_parameters": sum(
            size for name, size in sizes.items() if is_personal(name, layers)
        ),
        "personal_layers": list(layers),
        "channels": train.channels,
        "image_size": train.image_size,
    }


def client_settings(
    summary: dict[str, Any],
    model: ModelConfig,
    training: TrainingConfig,
    federation: FederationConfig,
    rules: ThresholdFilterConfig,
    run: RunConfig,
) -> "ClientSettings":
    """Return what every client is told, without ``auto``; ``summary`` is of :func:`check_arm`."""
    from phoenix_pipeline.federated.records import ClientSettings

    model, training, _ = settle_groups(model, training, federation, summary["image_size"])
    return ClientSettings(
        model=model,
        training=training,
        channels=summary["channels"],
        image_size=summary["image_size"],
        seed=run.seed,
        personal_layers=tuple(summary["personal_layers"]),
        monitor_samples=rules.monitor_samples,
        monitor_steps=rules.monitor_steps,
        compression=federation.compression,
    )
