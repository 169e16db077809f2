"""What ``auto`` means: network, batch and budget by the side of the images.

Sized so that every arm together takes about half an hour on 2 CPU cores at 64 pixels or fewer
(docs/own-data.md); the network is the same on a GPU, so that results do not depend on the machine.
"""

from dataclasses import dataclass

from phoenix_pipeline.config.base import AUTO
from phoenix_pipeline.config.federation import FederationConfig
from phoenix_pipeline.config.model import ModelConfig
from phoenix_pipeline.config.training import TrainingConfig
from phoenix_pipeline.errors import SettingsError

# Attention compares every two places of a feature map: 16 x 16 have 65,536 pairs.
_LARGEST_ATTENTION_SIDE = 16
_SMALLEST_FEATURE_MAP = 4
# The rounds over which the budget is divided where ``num_rounds`` is as in conf/base.
_ROUNDS, _POOLED_ROUNDS = 12, 48


@dataclass(frozen=True)
class SizePreset:
    """``max_side``: the largest side that it is for. ``images``: trained on in a whole run."""

    max_side: int
    channels: tuple[int, ...]
    batch_size: int
    learning_rate: float
    images: int
    gan_batch_size: int
    gan_learning_rate: float
    gan_channels: int
    gan_latent: int
    gan_layers: int


# The first row is the digits'. From 13 pixels on the DCGAN is the paper's (arXiv 1511.06434).
PRESETS = (
    SizePreset(12, (16, 32), 64, 2e-3, 138_240, 32, 1e-3, 64, 32, 2),
    SizePreset(20, (16, 32, 64), 32, 1e-3, 98_304, 32, 2e-4, 64, 100, 1),
    SizePreset(48, (16, 32, 64), 32, 1e-3, 49_152, 32, 2e-4, 32, 100, 1),
    SizePreset(96, (16, 32, 64, 64), 16, 1e-3, 24_576, 32, 2e-4, 32, 100, 1),
    SizePreset(160, (16, 32, 64, 64, 128), 16, 1e-3, 12_288, 32, 2e-4, 16, 100, 1),
    SizePreset(256, (16, 32, 32, 64, 64, 128), 8, 5e-4, 6_144, 16, 2e-4, 8, 100, 1),
)


def preset_for(image_size: int) -> SizePreset:
    """Return the preset of a side in pixels."""
    return next(preset for preset in PRESETS if image_size <= preset.max_side)


def settle_model(model: ModelConfig, image_size: int) -> ModelConfig:
    """Return ``model`` without ``auto``.

    The U-Net has the preset's levels as far as the side can be halved to 4 pixels or more, and
    attention on its smallest feature maps if these have at most 16 pixels a side.
    """
    preset = preset_for(image_size)
    unet = model.unet.settled(block_out_channels=preset.channels[: _num_levels(image_size, preset)])
    smallest = image_size // 2 ** (len(unet.block_out_channels) - 1)
    attention = (smallest,) if smallest <= _LARGEST_ATTENTION_SIDE else ()
    dcgan = model.dcgan.settled(
        latent_dim=preset.gan_latent,
        base_channels=preset.gan_channels,
        layers_per_resolution=preset.gan_layers,
    )
    unet = unet.settled(attention_resolutions=attention)
    return model.model_copy(update={"unet": unet, "dcgan": dcgan})


def settle_training(
    training: TrainingConfig, model: ModelConfig, image_size: int
) -> TrainingConfig:
    """Return ``training`` without ``auto``, for this kind of model."""
    preset = preset_for(image_size)
    if model.family == "dcgan":
        return training.settled(
            batch_size=preset.gan_batch_size, learning_rate=preset.gan_learning_rate
        )
    return training.settled(batch_size=preset.batch_size, learning_rate=preset.learning_rate)


def settle_federation(federation: FederationConfig, image_size: int) -> FederationConfig:
    """Return ``federation`` without ``auto``: the preset's images over 12 rounds, 48 if pooled.

    Raises:
        SettingsError: the work is counted in something else than images.
    """
    work = federation.local_work
    if "amount" in work.auto and work.unit != "images_per_round":
        raise SettingsError(
            f"federation.local_work.amount is {AUTO}, which is for unit images_per_round, but unit "
            f"is {work.unit}; set a number"
        )
    rounds = _POOLED_ROUNDS if federation.pooled else _ROUNDS
    amount = preset_for(image_size).images / rounds
    return federation.model_copy(update={"local_work": work.settled(amount=amount)})


def _num_levels(image_size: int, preset: SizePreset) -> int:
    levels = 1
    while (
        levels < len(preset.channels)
        and image_size % 2**levels == 0
        and image_size // 2**levels >= _SMALLEST_FEATURE_MAP
    ):
        levels += 1
    return levels
