"""Set an arm up: who trains on what, what clients are told, and the checks before any training."""

from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.arms.checks import (
    check_budget,
    check_clients,
    check_conditioning,
    check_latents,
    check_lora,
    check_loss,
    check_personalization,
    check_pool,
    check_rule,
    check_threshold,
)
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.by_image_size import list_settled, settle_arm
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.partitioning.shared_pool import draw_shared_pool
from phoenix_pipeline.strategies import Strategies


def set_up_arm(
    train: ImageSet,
    test: ImageSet,
    partition: pd.DataFrame,
    settings: ArmSettings,
    run: RunConfig,
    checkpoints: Path,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Return client images, pool and model, all checked; raises SettingsError, CheckpointError."""
    summary = check_arm(train, test, settings, run, checkpoints)
    return *assign_images(train, partition, settings, run), summary


def assign_images(
    train: ImageSet, partition: pd.DataFrame, settings: ArmSettings, run: RunConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each client's images and pool; pooled: of client 0. Raises SettingsError."""
    pool = draw_shared_pool(partition, settings.shared_pool, run.seed, train.num_classes)
    training = pool.training
    if settings.federation.pooled:
        training = training.drop_duplicates("image_index").assign(client_id=0)
    check_clients(settings.federation, training["client_id"].unique().tolist())
    return training, pool.shares


def check_arm(
    train: ImageSet, test: ImageSet, given: ArmSettings, run: RunConfig, checkpoints: Path
) -> dict[str, Any]:
    """Build the model once and check what only the images can tell; return what it is.

    Raises SettingsError: something does not fit; CheckpointError: ``checkpoints`` has an
    unfinished run of other settings.
    """
    check_budget(given.federation)
    check_latents(train, given)
    settings = settle_arm(given, train.image_size)
    check_conditioning(train, settings)
    check_loss(settings)
    check_lora(settings)
    family_of(settings.model).check_sampling(settings.model, settings.sampling)
    model = ArmModel.build(train, settings, run)
    check_rule(settings, model.layers)
    check_privacy_of(model)
    check_codecs(model)
    Strategies.of(settings.federation.strategies).check(settings)
    check_personalization(settings, model.layers)
    check_pool(settings)
    check_threshold(settings, train, test, run)
    _check_start(model, checkpoints)
    return {**model.summary(), "settled": list_settled(given, settings)}


def check_privacy_of(model: ArmModel) -> None:
    """Refuse what the epsilon of this arm would not cover; raises SettingsError."""
    from phoenix_pipeline.federated.privacy.checks import check_privacy

    settings, pool = model.settings, model.settings.shared_pool
    released = bool(model.layers) and settings.federation.waits_for_released_layers
    check_privacy(
        settings.federation,
        settings.training,
        model.network,
        filters_clients=settings.threshold_filter.enabled,
        uploads_personal=settings.personal_layers.final_average or released,
        shares_images=pool.beta > 0 and pool.source == "clients",
    )


def check_codecs(model: ArmModel) -> None:
    """Refuse a codec whose vectors would take the place of other arrays; raises SettingsError."""
    from phoenix_pipeline.federated.compression.codecs import codec_of
    from phoenix_pipeline.federated.compression.updates import plan_message
    from phoenix_pipeline.federated.personal_layers import split_personal
    from phoenix_pipeline.federated.wire import Layout

    shared, _ = split_personal(model.network.state_dict(), model.layers)
    compression = model.settings.federation.compression
    for way in (compression.up, compression.down):
        plan_message(Layout.of(shared), codec_of(way))


def _check_start(model: ArmModel, checkpoints: Path) -> None:
    """Refuse given weights that do not fit, and checkpoints that training would not go on from."""
    from phoenix_pipeline.federated import run_state
    from phoenix_pipeline.federated.job import identify_settings

    settings, start = model.settings, model.load_start()
    stored = checkpoints / run_state.SERVER_FOLDER
    # What clients are told has the digest of an autoencoder in it, which takes reading it.
    if settings.federation.resume and run_state.checkpoints(stored):
        rules = settings.threshold_filter if settings.threshold_filter.enabled else None
        steps = settings.shared_pool.warmup_steps
        of_clients = model.client_settings()
        asked = identify_settings(settings.federation, of_clients, rules, steps, start)
        run_state.is_resumable(stored, asked)
