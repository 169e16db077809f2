"""The noise-predicting network, diffusers' ``UNet2DModel``: its sizes, its layers, its seed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from phoenix_pipeline.config import ModelConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.config.base import AUTO
from phoenix_pipeline.diffusion.dropout import replace_dropout
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.seeding import derive_seed

if TYPE_CHECKING:
    from diffusers import UNet2DModel

OUTPUT = ("conv_norm_out", "conv_out")
_PRESETS = {
    "output": OUTPUT,
    "last_up_block": ("up_blocks.{last}", *OUTPUT),
    "decoder": ("up_blocks", *OUTPUT),
    "time_embedding": ("time_embedding",),
    "class_embedding": ("class_embedding",),
}
_ADAPTERS = {"adapters": ("*.lora_B",)}


def layer_presets(model: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return the prefixes of layers by their preset's name."""
    last = len(model.unet.block_out_channels) - 1
    presets = {**_PRESETS, **(_ADAPTERS if model.lora.rank else {})}
    return {name: tuple(p.format(last=last) for p in own) for name, own in presets.items()}


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


# Attention compares every two places of a feature map: 16 x 16 have 65,536 pairs.
_LARGEST_ATTENTION_SIDE = 16
_SMALLEST_FEATURE_MAP = 4
# With alignment clients go a steadier way: twice the step size was best on the digits, and ten
# averaged clients bear it (docs/results.md). At 32 pixels it was better than the plain rate, too.
_ALIGNED_RATE = 2.0


@dataclass(frozen=True)
class _SizePreset:
    """``max_side``: the largest side that it is for.

    ``batch_size`` is a client's: small steps and many averages serve a federation. A pooled client,
    which holds all data, has ``pooled_batch_size``, clients with alignment ``aligned_batch_size``.
    """

    max_side: int
    channels: tuple[int, ...]
    batch_size: int
    pooled_batch_size: int
    aligned_batch_size: int
    learning_rate: float
    micro_batch: int | None = None


# Measured at 8 and at 32 pixels (docs/own-data.md); other sizes follow.
_SIZE_PRESETS = (
    _SizePreset(12, (16, 32), 16, 64, 8, 2e-3),
    _SizePreset(20, (16, 32, 64), 16, 8, 8, 1e-3),
    _SizePreset(48, (16, 32, 64), 16, 8, 8, 1e-3),
    _SizePreset(96, (16, 32, 64, 64), 16, 16, 16, 1e-3),
    _SizePreset(160, (16, 32, 64, 64, 128), 16, 16, 16, 1e-3),
    _SizePreset(256, (16, 32, 32, 64, 64, 128), 8, 8, 8, 5e-4, micro_batch=2),
)


def settle_unet(unet: UNetConfig, image_size: int) -> UNetConfig:
    """Return ``unet`` without ``auto``.

    The U-Net has the preset's levels as far as the side can be halved to 4 pixels or more, and
    attention on its smallest feature maps if these have at most 16 pixels a side.
    Raises SettingsError: ``norm_num_groups`` was set to what does not divide the preset's channels.
    """
    channels = _preset_for(image_size).channels
    unet = unet.settled(block_out_channels=channels[: _num_levels(image_size, channels)])
    if odd := [c for c in unet.block_out_channels if c % unet.norm_num_groups]:
        raise SettingsError(
            f"model.unet.block_out_channels is {AUTO}, for {image_size}-pixel images "
            f"{list(unet.block_out_channels)}, but norm_num_groups={unet.norm_num_groups} does not "
            f"divide {odd[0]}; set norm_num_groups to 8, or block_out_channels as well"
        )
    smallest = image_size // 2 ** (len(unet.block_out_channels) - 1)
    attention = (smallest,) if smallest <= _LARGEST_ATTENTION_SIDE else ()
    return unet.settled(attention_resolutions=attention)


def settle_training(
    training: TrainingConfig, image_size: int, *, pooled: bool, aligned: bool
) -> TrainingConfig:
    """Return ``training`` without ``auto``, ``pooled`` or of clients, perhaps ``aligned``."""
    preset = _preset_for(image_size)
    rate = preset.learning_rate * (_ALIGNED_RATE if aligned else 1.0)
    batch_size = preset.aligned_batch_size if aligned else preset.batch_size
    batch_size = preset.pooled_batch_size if pooled else batch_size
    # DP-SGD divides its batches itself.
    micro_batch = None if training.dp_sgd.enabled else preset.micro_batch
    return training.settled(batch_size=batch_size, learning_rate=rate, micro_batch=micro_batch)


def _preset_for(image_size: int) -> _SizePreset:
    return next(preset for preset in _SIZE_PRESETS if image_size <= preset.max_side)


def _num_levels(image_size: int, channels: tuple[int, ...]) -> int:
    levels = 1
    while (
        levels < len(channels)
        and image_size % 2**levels == 0
        and image_size // 2**levels >= _SMALLEST_FEATURE_MAP
    ):
        levels += 1
    return levels
