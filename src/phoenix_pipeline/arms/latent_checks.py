"""What an autoencoder, the images and a start must have in common; refused before any training."""

from pathlib import Path

from phoenix_pipeline.config import ArmSettings, ModelConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet


def check_latents(train: ImageSet, settings: ArmSettings) -> None:
    """Refuse an autoencoder that is none, or does not take the images.

    A broken one, or one for another family, is refused too.
    """
    from phoenix_pipeline.families.latents import find_latents

    if (space := find_latents(settings.model)) is not None:
        space.check(train.channels, train.image_size)


def check_start_latents(start: Path, model: ModelConfig) -> None:
    """Refuse a start that learnt the latents of another autoencoder, or latents for pixels.

    ``start``: a folder; a network alone does not tell what it learnt.
    """
    from phoenix_pipeline.families.latents import autoencoder_folder
    from phoenix_pipeline.latents.autoencoder import load_autoencoder
    from phoenix_pipeline.latents.space import has_autoencoder

    folder = autoencoder_folder(model)
    if not has_autoencoder(start):
        return
    if folder is None:
        raise SettingsError(
            f"model.start_from {start} learnt latents, but model.autoencoder is null; set "
            f"model.autoencoder: {start}, or name another start"
        )
    ours, theirs = (load_autoencoder(each).space.digest for each in (folder, start))
    if ours != theirs:
        raise SettingsError(
            f"model.start_from {start} learnt latents of an autoencoder with the digest {theirs}, "
            f"but that of model.autoencoder is {ours}; set model.autoencoder: {start}, or name "
            "another start"
        )
