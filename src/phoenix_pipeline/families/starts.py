"""Where the weights lie that a training starts from."""

from pathlib import Path

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.hub import find_folder


def start_folder(model: ModelConfig) -> Path | None:
    """Return the folder that ``model.start_from`` is or names; None where there is no start.

    Raises SettingsError: it is a name on the hub that the local cache does not have.
    """
    if model.start_from is None:
        return None
    return find_folder(model.start_from, "model.start_from", allow_download=model.allow_download)
