"""Set an arm up: who trains on what, what clients are told, and the checks before any training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from phoenix_pipeline.arms.checks import (
    check_clients,
    check_conditioning,
    check_lora,
    check_loss,
    check_personalization,
    check_pool,
    check_rule,
    check_threshold,
)
from phoenix_pipeline.arms.latent_checks import check_latents, check_start_latents
from phoenix_pipeline.config import ArmSettings, ModelConfig, RunConfig
from phoenix_pipeline.families.by_image_size import list_settled, settle_arm
from phoenix_pipeline.families.latents import autoencoder_folder, find_latents
from phoenix_pipeline.families.starts import start_folder
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.latents.space import trained_shape
from phoenix_pipeline.partitioning.shared_pool import draw_shared_pool

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phoenix_pipeline.federated.records import ClientSettings


def set_up_arm(
    train: ImageSet,
    test: ImageSet,
    partition: pd.DataFrame,
    settings: ArmSettings,
    run: RunConfig,
    checkpoints: Path,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Return each client's images, its share of the pool, and what the model is.

    Whoever trains on these has passed every check that needs no training.

    Raises:
        SettingsError, CheckpointError: see :func:`assign_images` and :func:`check_arm`.
    """
    summary = check_arm(train, test, settings, run, checkpoints)
    return *assign_images(train, partition, settings, run), summary


def assign_images(
    train: ImageSet, partition: pd.DataFrame, settings: ArmSettings, run: RunConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each client's training images and each client's share of the pool.

    With ``federation.pooled`` one client, number 0, holds what all clients hold together.

    Raises:
        SettingsError: there are too few clients for ``settings.federation``.
    """
    pool = draw_shared_pool(partition, settings.shared_pool, run.seed, train.num_classes)
    training = pool.training
    if settings.federation.pooled:
        training = training.drop_duplicates("image_index").assign(client_id=0)
    # In a deployment the nodes are the clients, and are counted when they have connected.
    if settings.federation.engine != "deployment":
        check_clients(settings.federation, training["client_id"].unique().tolist())
    return training, pool.shares


def check_arm(
    train: ImageSet, test: ImageSet, settings: ArmSettings, run: RunConfig, checkpoints: Path
) -> dict[str, Any]:
    """Build the model once and check what only the images can tell; return what it is.

    ``settled`` in it is what each setting of ``auto`` became.

    Raises:
        SettingsError: the model does not fit the images, or settings contradict each other.
        CheckpointError: ``checkpoints`` has an unfinished run of other settings.
    """
    from phoenix_pipeline.federated.job import identify_settings
    from phoenix_pipeline.federated.privacy.checks import check_privacy
    from phoenix_pipeline.federated.run_state import SERVER_FOLDER, is_resumable
    from phoenix_pipeline.strategies import Strategies

    check_latents(train, settings)
    given, settings = settings, settle_arm(settings, train.image_size)
    federation, personal = settings.federation, settings.personal_layers
    filtering, pool = settings.threshold_filter, settings.shared_pool
    check_conditioning(train, settings)
    check_loss(settings)
    check_lora(settings)
    network = _build(train, settings, run)
    layers = _layers_that_stay(network, settings)
    check_rule(settings, layers)
    check_privacy(
        federation,
        settings.training,
        network,
        filters_clients=filtering.enabled,
        uploads_personal=personal.final_average
        or (bool(layers) and federation.waits_for_released_layers),
        shares_images=pool.beta > 0 and pool.source == "clients",
    )
    Strategies.of(federation.strategies).check(settings)
    check_personalization(settings, layers)
    check_pool(settings)
    check_threshold(settings, train, test, run)
    start = load_start(train, settings, run)
    if federation.resume:
        of_clients = _client_settings(train, network, layers, settings, run)
        rules = filtering if filtering.enabled else None
        asked = identify_settings(federation, of_clients, rules, pool.warmup_steps, start)
        is_resumable(checkpoints / SERVER_FOLDER, asked)
    summary = _summarise(network, settings.model, layers, train)
    return {**summary, "settled": list_settled(given, settings)}


def load_start(
    train: ImageSet, settings: ArmSettings, run: RunConfig
) -> "dict[str, Tensor] | None":
    """Return the weights of ``model.start_from``, which fit the model; None where there are none.

    Adapters do not move them: their network is built with them, and nobody is sent any.

    ``settings`` are without ``auto``.

    Raises:
        SettingsError: they do not fit; says what does.
        CheckpointError: there are no weights.
    """
    from phoenix_pipeline.families import family_of

    folder = start_folder(settings.model)
    if folder is None:
        return None
    check_start_latents(folder, settings.model)
    if settings.model.lora.rank:
        return None
    network = _build(train, settings, run)
    return family_of(settings.model).load_start(folder, network, settings.model)


def find_base(settings: ArmSettings) -> Path | None:
    """Return the folder of what adapters are trained on; None without adapters."""
    start = start_folder(settings.model)
    return start.resolve() if start and settings.model.lora.rank else None


def client_settings(train: ImageSet, settings: ArmSettings, run: RunConfig) -> "ClientSettings":
    """Return what every client is told, without ``auto``.

    Raises:
        SettingsError: the model does not fit the images.
    """
    settings = settle_arm(settings, train.image_size)
    network = _build(train, settings, run)
    layers = _layers_that_stay(network, settings)
    return _client_settings(train, network, layers, settings, run)


def _client_settings(
    train: ImageSet,
    network: "nn.Module",
    layers: tuple[str, ...],
    settings: ArmSettings,
    run: RunConfig,
) -> "ClientSettings":
    from phoenix_pipeline.families import family_of
    from phoenix_pipeline.federated.records import ClientSettings
    from phoenix_pipeline.latents.autoencoder import load_autoencoder

    folder = autoencoder_folder(settings.model)
    # Clients get the weights, and have folders of their own.
    unnamed = {"start_from": None, "autoencoder": None, "allow_download": False}
    return ClientSettings(
        model=settings.model.model_copy(update=unnamed),
        training=settings.training,
        channels=train.channels,
        image_size=train.image_size,
        seed=run.seed,
        personal_layers=layers,
        monitor_samples=settings.threshold_filter.monitor_samples,
        monitor_steps=settings.threshold_filter.monitor_steps,
        compression=settings.federation.compression,
        strategies=settings.federation.strategies,
        class_names=_class_names(train, settings),
        base_digest=family_of(settings.model).base_digest(network),
        latents=load_autoencoder(folder).space if folder else None,
    )


def _class_names(train: ImageSet, settings: ArmSettings) -> tuple[str, ...]:
    """Return the classes of a conditional model; none of any other."""
    return train.class_names if settings.model.conditioning == "labels" else ()


def _build(train: ImageSet, settings: ArmSettings, run: RunConfig) -> "nn.Module":
    from phoenix_pipeline.families import family_of

    resolve_device(run.device)
    family = family_of(settings.model)
    space = find_latents(settings.model)
    channels, side, _ = trained_shape(train.channels, train.image_size, space)
    family.check(settings.model, settings.sampling, channels, side)
    classes = len(_class_names(train, settings))
    return family.build(settings.model, channels, side, run.seed, classes)


def _layers_that_stay(network: "nn.Module", settings: ArmSettings) -> tuple[str, ...]:
    """Return the prefixes of what clients keep, as personal layers or by a partial update."""
    from phoenix_pipeline.federated.compression.partial_updates import layers_that_stay
    from phoenix_pipeline.federated.personal_layers import personal_prefixes

    names = network.state_dict()
    layers = personal_prefixes(settings.personal_layers, settings.model, names)
    return layers_that_stay(layers, settings.federation, settings.model, names)


def _summarise(
    network: "nn.Module", model: ModelConfig, layers: tuple[str, ...], train: ImageSet
) -> dict[str, Any]:
    from phoenix_pipeline.families import family_of
    from phoenix_pipeline.federated.personal_layers import is_personal

    sizes = {name: weight.numel() for name, weight in network.named_parameters()}
    at_rest = family_of(model).arrays_at_rest(network).values()
    return {
        "num_parameters": sum(sizes.values()),
        "num_parameters_at_rest": sum(array.numel() for array in at_rest),
        "num_personal_parameters": sum(
            size for name, size in sizes.items() if is_personal(name, layers)
        ),
        "personal_layers": list(layers),
        "channels": train.channels,
        "image_size": train.image_size,
    }
