"""The noise-predicting network: diffusers' ``UNet2DModel``, built from parameters and a seed."""

from typing import TYPE_CHECKING

import torch

from phoenix_pipeline.config import UNetConfig
from phoenix_pipeline.diffusion.dropout import replace_dropout
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.seeding import derive_seed

if TYPE_CHECKING:
    from diffusers import UNet2DModel


def feature_map_sides(config: UNetConfig, image_size: int) -> list[int]:
    """Return the side of each level's maps, largest first; raises SettingsError if not halvable."""
    levels = len(config.block_out_channels)
    if image_size % 2 ** (levels - 1):
        raise SettingsError(
            f"model.unet.block_out_channels has {levels} levels, but images of {image_size} pixels "
            f"cannot be halved {levels - 1} times; set it to auto, use fewer levels, or set "
            f"images.image_size to a multiple of {2 ** (levels - 1)}"
        )
    return [image_size // 2**level for level in range(levels)]


def build_unet(
    config: UNetConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
) -> "UNet2DModel":
    """Return the U-Net for ``channels`` x ``image_size`` x ``image_size`` images.

    With ``num_classes`` it has an embedding of each class and, in the last row, of the null class.

    The weights depend on ``seed`` alone; torch's global generator is left as it was.
    Raises SettingsError: the levels or attention resolutions do not fit ``image_size``.
    """
    from diffusers import UNet2DModel

    sides = feature_map_sides(config, image_size)
    unknown = set(config.attention_resolutions) - set(sides)
    if unknown:
        raise SettingsError(
            f"model.unet.attention_resolutions has {sorted(unknown)}, but the feature maps of "
            f"{image_size}-pixel images have sides {sides}; choose among these, or set it to auto"
        )
    attention = [side in config.attention_resolutions for side in sides]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "unet"))
        unet = UNet2DModel(
            sample_size=image_size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]),
            attention_head_dim=config.attention_head_dim,
            norm_num_groups=config.norm_num_groups,
            dropout=config.dropout,
            num_class_embeds=num_classes + 1 if num_classes else None,
        )
    if config.dropout > 0.0:
        replace_dropout(unet)
    return unet
