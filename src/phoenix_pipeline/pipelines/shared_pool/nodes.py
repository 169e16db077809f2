"""Decide what each client trains on, and refuse settings that cannot work before any training."""

import pandas as pd

from phoenix_pipeline.config import (
    FederationConfig,
    ModelConfig,
    PersonalizationConfig,
    RunConfig,
    SamplingConfig,
    SharedPoolConfig,
)
from phoenix_pipeline.diffusion.sampling import check_sampling
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.partitioning.shared_pool import draw_shared_pool


def assign_images(
    train: ImageSet,
    partition: pd.DataFrame,
    config: SharedPoolConfig,
    federation: FederationConfig,
    run: RunConfig,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each client's training images and each client's share of the pool.

    With ``federation.pooled`` one client, number 0, holds what all clients hold together.
    """
    pool = draw_shared_pool(partition, config, run.seed, train.num_classes)
    training = pool.training
    if federation.pooled:
        training = training.drop_duplicates("image_index").assign(client_id=0)
    num_clients = training["client_id"].nunique()
    if federation.min_clients > num_clients:
        raise SettingsError(
            f"federation.min_clients is {federation.min_clients}, but there are {num_clients} "
            "clients; allowed: 1 to that number"
        )
    return training, pool.shares


def check_arm(
    train: ImageSet,
    model: ModelConfig,
    personalization: PersonalizationConfig,
    pool: SharedPoolConfig,
    sampling: SamplingConfig,
    run: RunConfig,
) -> dict[str, int]:
    """Build the model once and check what only the images can tell; return the model's size.

    Raises:
        SettingsError: the model does not fit the images, or a setting has no effect yet.
    """
    planned = {
        "model.family": model.family != "diffusion",
        "personalization.layers": personalization.layers is not None,
        "personalization.threshold_filter.enabled": personalization.threshold_filter.enabled,
        "shared_pool.warmup_steps": pool.warmup_steps > 0,
    }
    for name, is_set in planned.items():
        if is_set:
            raise SettingsError(f"{name} is set, but this version cannot do it yet; leave it out")
    resolve_device(run.device)
    check_sampling(sampling, model.noise)
    unet = build_unet(model.unet, train.channels, train.image_size, run.seed)
    return {
        "num_parameters": sum(p.numel() for p in unet.parameters()),
        "channels": train.channels,
        "image_size": train.image_size,
    }
