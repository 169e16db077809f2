"""What ``auto`` means for a diffusion model: network, batch and step size by the images' side."""

from dataclasses import dataclass

from phoenix_pipeline.config import TrainingConfig, UNetConfig
from phoenix_pipeline.config.base import AUTO
from phoenix_pipeline.errors import SettingsError

# Attention compares every two places of a feature map: 16 x 16 have 65,536 pairs.
_LARGEST_ATTENTION_SIDE = 16
_SMALLEST_FEATURE_MAP = 4
# With alignment clients go a steadier way: twice the step size was best on the digits, and ten
# averaged clients bear it (docs/results.md). Other sizes follow them, unmeasured.
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


# The first row is the digits'.
_PRESETS = (
    _SizePreset(12, (16, 32), 16, 64, 8, 2e-3),
    _SizePreset(20, (16, 32, 64), 32, 32, 32, 1e-3),
    _SizePreset(48, (16, 32, 64), 32, 32, 32, 1e-3),
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
    """Return ``training`` without ``auto``: small batches in a federation, large in one place.

    ``pooled``: one client has all images; ``aligned``: clients follow the last global step.
    """
    preset = _preset_for(image_size)
    rate = preset.learning_rate * (_ALIGNED_RATE if aligned else 1.0)
    batch_size = preset.aligned_batch_size if aligned else preset.batch_size
    batch_size = preset.pooled_batch_size if pooled else batch_size
    # DP-SGD divides its batches itself.
    micro_batch = None if training.dp_sgd.enabled else preset.micro_batch
    return training.settled(batch_size=batch_size, learning_rate=rate, micro_batch=micro_batch)


def _preset_for(image_size: int) -> _SizePreset:
    return next(preset for preset in _PRESETS if image_size <= preset.max_side)


def _num_levels(image_size: int, channels: tuple[int, ...]) -> int:
    levels = 1
    while (
        levels < len(channels)
        and image_size % 2**levels == 0
        and image_size // 2**levels >= _SMALLEST_FEATURE_MAP
    ):
        levels += 1
    return levels
