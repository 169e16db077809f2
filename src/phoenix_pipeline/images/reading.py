"""Read a source into an :class:`ImageSet`; images are decoded into the final array."""

import logging
from pathlib import Path

import numpy as np

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.image_set import ImageSet
from phoenix_pipeline.images.parquet import read_parquet
from phoenix_pipeline.images.sources import ImageSource, find_image_source
from phoenix_pipeline.images.stack import ImageStack

logger = logging.getLogger(__name__)


def read_images(
    source: Path | str | ImageSource, config: ImagesConfig, require_all_classes: bool = True
) -> ImageSet:
    """Read Parquet files, a folder of images by class, or a folder of unlabelled images.

    ``require_all_classes``: a class that is declared but has no image is an error; pass False for
    a test split. Raises DataError, naming the file and row, for whatever cannot be read as
    declared by ``config``.
    """
    if not isinstance(source, ImageSource):
        source = find_image_source(source)
    if source.kind == "parquet":
        images = read_parquet(source.files, config)
    else:
        images = _read_folder(source, config)
    if require_all_classes and images.labels is not None:
        counts = np.bincount(images.labels, minlength=images.num_classes)
        if not counts.all():
            raise DataError(
                f"class {images.class_names[int(counts.argmin())]!r} has no image in "
                f"{source.path}; every declared class needs one"
            )
    logger.info(
        "Read %d images (%d x %d px, %d channels, %d classes) from %s",
        images.num_images, images.image_size, images.image_size, images.channels,
        images.num_classes, source.path,
    )  # fmt: skip
    return images


def _read_folder(source: ImageSource, config: ImagesConfig) -> ImageSet:
    stack = ImageStack(len(source.files), config.channels, config.image_size)
    stack.add_all(map(_read_file, source.files))
    if source.kind == "flat_folder" or config.label_column is None:
        return ImageSet(stack.images())
    folders = [file.parent.name for file in source.files]
    class_names = tuple(dict.fromkeys(folders))
    positions = {name: position for position, name in enumerate(class_names)}
    labels = np.array([positions[folder] for folder in folders], dtype=np.int64)
    return ImageSet(stack.images(), labels, class_names)


def _read_file(file: Path) -> tuple[bytes, str]:
    try:
        return file.read_bytes(), str(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
