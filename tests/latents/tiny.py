"""A tiny autoencoder of random weights, and settings of a federation that learns its latents."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.images import ImageSet
from tests.federated.tiny import UNET, make_images, settings

LATENT_CHANNELS, FACTOR, SCALE, SHIFT = 2, 2, 1.7, 0.25


def build(seed: int = 1, channels: int = 1, levels: int = 2, **options: Any) -> AutoencoderKL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(8,) * levels,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=4,
            **{"scaling_factor": SCALE, "shift_factor": SHIFT, **options},
        )


def make_autoencoder(folder: Path, seed: int = 1, **options: Any) -> Path:
    build(seed, **options).save_pretrained(folder, safe_serialization=True)
    return folder


def arm(autoencoder: Path, **groups: Any) -> ArmSettings:
    model = {"unet": UNET, "autoencoder": str(autoencoder), **groups.pop("model", {})}
    return ArmSettings(model=model, sampling={"num_steps": 2}, **groups)


def told(
    autoencoder: Path,
    layers: tuple[str, ...] = (),
    images: ImageSet | None = None,
    model: dict[str, Any] | None = None,
    **training: Any,
) -> ClientSettings:
    """Return what clients are told, with the digest of what is in ``autoencoder``."""
    own = ArmModel.of(
        images or make_images(),
        arm(autoencoder, model=model or {}),
        RunConfig(seed=5, device="cpu"),
    ).client_settings()
    return own.model_copy(
        update={"personal_layers": layers, "training": settings(**training).training}
    )
