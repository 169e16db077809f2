"""What latents of an autoencoder look like, by its configuration alone; nothing imports torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phoenix_pipeline.config import AutoencoderConfig, Group
from phoenix_pipeline.config.base import Positive
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.json_files import read_json

KIND = "AutoencoderKL"
SETTING = "model.autoencoder"
# Where pipelines of diffusers have it; the last one is its own folder.
_PLACES = ("vae/", "vqvae/", "")
_CONFIG = "config.json"
ImageShape = tuple[int, int, int]


class LatentSpace(Group):
    """Latents of images with ``in_channels`` have ``channels``, and sides ``factor`` times shorter.

    ``shift`` is taken off what the encoder gives. ``digest``: 32 hex digits of the autoencoder; ""
    where its configuration alone was read.
    """

    in_channels: Positive
    channels: Positive
    factor: Positive
    shift: float = 0.0
    digest: str = ""

    @classmethod
    def planned(cls, config: AutoencoderConfig, channels: int) -> "LatentSpace":
        """Return the latents of an autoencoder of ``config`` for images of ``channels``."""
        factor = _factor(config.block_out_channels)
        return cls(in_channels=channels, channels=config.latent_channels, factor=factor)

    def check(self, channels: int, image_size: int, setting: str = SETTING) -> None:
        """Raise SettingsError for images of a side that does not fit; says which ``setting``."""
        if channels != self.in_channels:
            raise SettingsError(
                f"{SETTING} takes images of {self.in_channels} channels, but these have "
                f"{channels}; set images.channels: {self.in_channels}, or name an autoencoder for "
                f"{channels}"
            )
        if image_size % self.factor:
            below = image_size // self.factor * self.factor
            fitting = [side for side in (below, below + self.factor) if side]
            raise SettingsError(
                f"{setting} makes sides {self.factor} times shorter, which does not divide "
                f"{image_size} pixels; set images.image_size: "
                f"{' or '.join(map(str, fitting))}, or change {setting}"
            )

    def shape_of(self, image_shape: ImageShape) -> ImageShape:
        """Return the shape (C, H, W) of the latents of images of that shape."""
        _, height, width = image_shape
        return self.channels, height // self.factor, width // self.factor


def space_of(config: Mapping[str, Any]) -> LatentSpace:
    """Return latents of an autoencoder's configuration; raises KeyError, TypeError, ValueError."""
    return LatentSpace(
        in_channels=int(config["in_channels"]),
        channels=int(config["latent_channels"]),
        factor=_factor(config["block_out_channels"]),
        shift=float(config.get("shift_factor") or 0.0),
    )


def _factor(block_out_channels: Sequence[int]) -> int:
    return int(2 ** (len(block_out_channels) - 1))


def trained_shape(channels: int, image_size: int, space: LatentSpace | None) -> ImageShape:
    """Return (C, H, W) of what a network is trained on: images, or their latents."""
    shape = (channels, image_size, image_size)
    return shape if space is None else space.shape_of(shape)


def find_autoencoder(folder: Path) -> Path:
    """Return the folder of the autoencoder, also inside a pipeline; raises CheckpointError."""
    for place in _PLACES:
        config = folder / place / _CONFIG
        if config.is_file():
            content = read_json(config)
            kind = content.get("_class_name") if isinstance(content, dict) else None
            if kind == KIND:
                return folder / place
    raise CheckpointError(
        f"{SETTING} {folder} has no {KIND}: neither its {_CONFIG} nor that in vae or vqvae is of "
        "one; name the folder of a diffusers autoencoder, or of a pipeline that has one"
    )


def has_autoencoder(folder: Path) -> bool:
    """Return whether there is one in ``folder``, which may be of a pipeline."""
    try:
        find_autoencoder(folder)
    except CheckpointError:
        return False
    return True


def read_space(folder: Path) -> LatentSpace:
    """Return the latents of ``folder``, without a digest; raises CheckpointError."""
    config = find_autoencoder(folder) / _CONFIG
    content = read_json(config)
    try:
        return space_of(content)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{config} is not that of an {KIND}: {error!r}") from error
