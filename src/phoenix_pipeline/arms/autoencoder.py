"""Train the autoencoder of a shared pool, for arms that learn latents."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from phoenix_pipeline.config import AutoencoderConfig, RunConfig, SharedPoolConfig
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.latents.autoencoder import write_origin
from phoenix_pipeline.latents.space import LatentSpace
from phoenix_pipeline.latents.training import reconstruction_psnr, train_autoencoder
from phoenix_pipeline.partitioning.shared_pool import draw_shared_pool
from phoenix_pipeline.progress import progress_bar

logger = logging.getLogger(__name__)

_MOST_HELD_OUT = 1000


def train_pool_autoencoder(
    train: ImageSet,
    test: ImageSet,
    partition: pd.DataFrame,
    config: AutoencoderConfig,
    run: RunConfig,
) -> Callable[[Path], None]:
    """Return a function that writes the autoencoder of the pool's images into a folder.

    The pool is the one that an arm with ``shared_pool.beta`` of ``config.beta`` has; no other image
    is looked at, but for held-out ones, whose reconstruction is measured.
    Raises SettingsError: the pool is too small, or the images cannot be halved as often.
    """
    planned = LatentSpace.planned(config, train.channels)
    planned.check(train.channels, train.image_size, "autoencoder.block_out_channels")
    pool_config = SharedPoolConfig(beta=config.beta, alpha=0.0)
    pool = draw_shared_pool(partition, pool_config, run.seed, train.num_classes).pool
    device = resolve_device(run.device)
    with progress_bar("autoencoder", config.steps) as advance:
        made = train_autoencoder(train.images[pool], config, run.seed, device, advance)
    held_out = torch.from_numpy(test.images[:_MOST_HELD_OUT]).to(device)
    psnr = reconstruction_psnr(made, held_out)
    channels, side, _ = made.space.shape_of((train.channels, train.image_size, train.image_size))
    logger.info(
        "autoencoder of %s pool images: latents of %s x %s x %s, held-out images come back at "
        "%.1f dB (PSNR)",
        len(pool), channels, side, side, psnr,
    )  # fmt: skip

    def write(folder: Path) -> None:
        made.save(folder)
        facts = {"held_out_psnr_db": psnr, "seed": run.seed, "digest": made.space.digest}
        write_origin(folder, len(pool), {**facts, "settings": config.model_dump(mode="json")})

    return write
