"""What an autoencoder of this project says of the images that it was trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.latents.space import find_autoencoder

FILE = "autoencoder.json"
_IMAGES = "pool_images"


def write_origin(folder: Path, pool_images: int, facts: Mapping[str, Any]) -> None:
    """Note beside an autoencoder how many images of clients it was trained on, and ``facts``."""
    write_json(folder / FILE, {_IMAGES: pool_images, **facts})


def read_pool_images(folder: Path) -> int | None:
    """Return how many images of clients it was trained on; None where nobody says.

    Raises CheckpointError: the note is broken.
    """
    note = find_autoencoder(folder) / FILE
    if not note.is_file():
        return None
    content = read_json(note)
    count = content.get(_IMAGES) if isinstance(content, dict) else None
    if not isinstance(count, int):
        raise CheckpointError(f"{note} does not say {_IMAGES}; train the autoencoder again")
    return count
