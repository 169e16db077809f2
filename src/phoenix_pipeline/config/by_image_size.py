"""What ``auto`` means: network, batch, rounds and budget by the side of the images.

Sized so that every arm together takes about half an hour on 2 CPU cores at 64 pixels or fewer
(docs/own-data.md); the network is the same on a GPU, so that results do not depend on the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phoenix_pipeline.config.arm_settings import ArmSettings
from phoenix_pipeline.config.base import AUTO, Group
from phoenix_pipeline.config.federation import FederationConfig
from phoenix_pipeline.config.model import ModelConfig
from phoenix_pipeline.config.training import TrainingConfig
from phoenix_pipeline.errors import SettingsError

# Attention compares every two places of a feature map: 16 x 16 have 65,536 pairs.
_LARGEST_ATTENTION_SIDE = 16
_SMALLEST_FEATURE_MAP = 4
# With alignment clients go a steadier way: twice the step size was best on the digits, and ten
# averaged clients bear it (docs/results.md). Other sizes follow them, unmeasured.
_ALIGNMENT, _ALIGNED_RATE = "alignment", 2.0
# Smaller networks lose more by dividing a step among cores than they win.
_SIDE_OF_ONE_THREAD = 12


@dataclass(frozen=True)
class SizePreset:
    """``max_side``: the largest side that it is for. ``images``: trained on in a whole run.

    ``batch_size`` is a client's: small steps and many averages serve a federation. A pooled client,
    which holds all data, has ``pooled_batch_size``, clients with alignment ``aligned_batch_size``
    and ``aligned_rounds``.
    """

    max_side: int
    channels: tuple[int, ...]
    batch_size: int
    pooled_batch_size: int
    aligned_batch_size: int
    aligned_rounds: int
    learning_rate: float
    images: int
    gan_batch_size: int
    gan_learning_rate: float
    gan_channels: int
    gan_latent: int
    gan_layers: int


# Rounds of arms without alignment, and of one client that holds all data.
_ROUNDS = 60
# The first row is the digits'. From 13 pixels on the DCGAN is the paper's (arXiv 1511.06434).
PRESETS = (
    SizePreset(12, (16, 32), 16, 64, 8, 96, 2e-3, 138_240, 32, 1e-3, 64, 32, 2),
    SizePreset(20, (16, 32, 64), 32, 32, 32, 60, 1e-3, 98_304, 32, 2e-4, 64, 100, 1),
    SizePreset(48, (16, 32, 64), 32, 32, 32, 60, 1e-3, 49_152, 32, 2e-4, 32, 100, 1),
    SizePreset(96, (16, 32, 64, 64), 16, 16, 16, 60, 1e-3, 24_576, 32, 2e-4, 32, 100, 1),
    SizePreset(160, (16, 32, 64, 64, 128), 16, 16, 16, 60, 1e-3, 12_288, 32, 2e-4, 16, 100, 1),
    SizePreset(256, (16, 32, 32, 64, 64, 128), 8, 8, 8, 60, 5e-4, 6_144, 16, 2e-4, 8, 100, 1),
)


def preset_for(image_size: int) -> SizePreset:
    """Return the preset of a side in pixels."""
    return next(preset for preset in PRESETS if image_size <= preset.max_side)


def settle_arm(settings: ArmSettings, image_size: int) -> ArmSettings:
    """Return the groups of an arm without ``auto``.

    Raises:
        SettingsError: see :func:`settle_federation` and :func:`settle_model`.
    """
    model = settle_model(settings.model, image_size)
    pooled, pull = settings.federation.pooled, settings.federation.strategies.get(_ALIGNMENT)
    # A share of 0 is no pull.
    aligned = pull is not None and pull.get("share") != 0
    return settings.model_copy(
        update={
            "model": model,
            "training": settle_training(
                settings.training, model, image_size, pooled=pooled, aligned=aligned
            ),
            "federation": settle_federation(settings.federation, image_size, aligned=aligned),
        }
    )


def settle_model(model: ModelConfig, image_size: int) -> ModelConfig:
    """Return ``model`` without ``auto``.

    The U-Net has the preset's levels as far as the side can be halved to 4 pixels or more, and
    attention on its smallest feature maps if these have at most 16 pixels a side.

    Raises:
        SettingsError: ``norm_num_groups`` was set to what does not divide the preset's channels.
    """
    preset = preset_for(image_size)
    unet = model.unet.settled(block_out_channels=preset.channels[: _num_levels(image_size, preset)])
    if odd := [c for c in unet.block_out_channels if c % unet.norm_num_groups]:
        raise SettingsError(
            f"model.unet.block_out_channels is {AUTO}, for {image_size}-pixel images "
            f"{list(unet.block_out_channels)}, but norm_num_groups={unet.norm_num_groups} does not "
            f"divide {odd[0]}; set norm_num_groups to 8, or block_out_channels as well"
        )
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
    training: TrainingConfig,
    model: ModelConfig,
    image_size: int,
    *,
    pooled: bool,
    aligned: bool = False,
) -> TrainingConfig:
    """Return ``training`` without ``auto``, for this kind of model and client.

    ``pooled``: one client has all images; ``aligned``: clients follow the last global step.
    """
    preset = preset_for(image_size)
    if model.family == "dcgan":
        return training.settled(
            batch_size=preset.gan_batch_size, learning_rate=preset.gan_learning_rate
        )
    rate = preset.learning_rate * (_ALIGNED_RATE if aligned else 1.0)
    batch_size = preset.aligned_batch_size if aligned else preset.batch_size
    batch_size = preset.pooled_batch_size if pooled else batch_size
    return training.settled(batch_size=batch_size, learning_rate=rate)


def settle_federation(
    federation: FederationConfig, image_size: int, *, aligned: bool = False
) -> FederationConfig:
    """Return ``federation`` without ``auto``: the preset's images, divided among the rounds.

    ``aligned``: clients follow the last global step.

    Raises:
        SettingsError: the work is counted in something else than images.
    """
    work = federation.local_work
    if "amount" in work.auto and work.unit != "images_per_round":
        raise SettingsError(
            f"federation.local_work.amount is {AUTO}, which is for unit images_per_round, but unit "
            f"is {work.unit}; set a number"
        )
    preset = preset_for(image_size)
    threads = 1 if image_size <= _SIDE_OF_ONE_THREAD else None
    rounds = preset.aligned_rounds if aligned else _ROUNDS
    settled = federation.settled(threads_per_client=threads, num_rounds=rounds)
    amount = preset.images / settled.num_rounds
    return settled.model_copy(update={"local_work": work.settled(amount=amount)})


def list_settled(given: Group, settled: Group) -> dict[str, Any]:
    """Return what each key that waited in ``given`` has become in ``settled``, by dotted names."""
    values = settled.model_dump(mode="json")
    return {key: read_dotted(values, key) for key in given.waiting()}


def read_dotted(values: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted name."""
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


def _num_levels(image_size: int, preset: SizePreset) -> int:
    levels = 1
    while (
        levels < len(preset.channels)
        and image_size % 2**levels == 0
        and image_size // 2**levels >= _SMALLEST_FEATURE_MAP
    ):
        levels += 1
    return levels
