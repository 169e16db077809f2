"""Which autoencoder a model's settings name, and what its latents are like."""

from pathlib import Path

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.hub import find_folder
from phoenix_pipeline.latents.space import SETTING, LatentSpace, read_space


def autoencoder_folder(model: ModelConfig) -> Path | None:
    """Return the folder of ``model.autoencoder``, None for pixels; raises SettingsError."""
    if model.autoencoder is None:
        return None
    if not family_of(model).latent:
        raise SettingsError(
            f"{SETTING} is {model.autoencoder}, but models of model.family {model.family} learn "
            f"pixels alone; set {SETTING}: null for this arm"
        )
    return find_folder(model.autoencoder, SETTING, allow_download=model.allow_download).resolve()


def find_latents(model: ModelConfig) -> LatentSpace | None:
    """Return what the latents are like, None for pixels; raises SettingsError, CheckpointError."""
    folder = autoencoder_folder(model)
    return None if folder is None else read_space(folder)


def latent_side(model: ModelConfig, image_size: int) -> int:
    """Return the side in which the network sees images; raises as :func:`find_latents`."""
    space = find_latents(model)
    if space is None:
        return image_size
    space.check(space.in_channels, image_size)
    return image_size // space.factor
