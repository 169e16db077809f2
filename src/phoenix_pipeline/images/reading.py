"""Read a source into an :class:`ImageSet`; images are decoded into the final array."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.folders import HIDDEN
from phoenix_pipeline.images.image_set import ImageSet
from phoenix_pipeline.images.labels import number_labels, readable_name
from phoenix_pipeline.images.metadata import read_metadata_tables
from phoenix_pipeline.images.parquet import count_rows, read_parquet
from phoenix_pipeline.images.sources import ImageSource, find_image_source
from phoenix_pipeline.images.stack import ImageStack
from phoenix_pipeline.quantities import counted

logger = logging.getLogger(__name__)

_NAMED_CLASSES = 5


@dataclass(frozen=True)
class _Found:
    images: ImageSet
    conversions: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_images(
    source: Path | str | ImageSource, config: ImagesConfig, keep_empty_classes: bool = False
) -> ImageSet:
    """Read Parquet files, a folder of images by class or with metadata, or unlabelled images.

    One line in the log accounts for every file: read, converted, or left out and why.
    ``keep_empty_classes``: keep classes that are declared but have no image, as a test split may
    have; else they are left out, which the line says.
    Raises DataError: something cannot be read as declared by ``config``; names file and row.
    """
    if not isinstance(source, ImageSource):
        source = find_image_source(source)
    found = _read(source, config)
    images, remarks = found.images, list(source.remarks)
    if not keep_empty_classes:
        images, empty = _without_empty_classes(images)
        remarks += [empty] if empty else []
    _account(source, images, remarks, found)
    return images


def count_images(source: Path | str) -> int:
    """Return how many images a source holds at most, reading none; raises DataError."""
    found = find_image_source(source)
    return count_rows(found.files) if found.kind == "parquet" else len(found.files)


def _read(source: ImageSource, config: ImagesConfig) -> _Found:
    if source.kind == "parquet":
        images, stack = read_parquet(source.files, config)
        return _Found(images, stack.conversions, _broken(stack))
    files: Sequence[Path] = source.files
    labels: Sequence[int] | Sequence[str] | None = None
    left_out: dict[str, int] = {}
    if source.kind == "metadata":
        listed = read_metadata_tables(source, config.label_column)
        files, labels = listed.files, listed.labels
        left_out = {"not listed in the metadata": listed.unlisted} if listed.unlisted else {}
    elif source.kind == "class_folders" and config.label_column is not None:
        labels = source.classes
    stack = ImageStack(len(files), config)
    stack.add_all(map(_read_file, files))
    return _Found(
        _labelled(stack, labels, source), stack.conversions, {**left_out, **_broken(stack)}
    )


def _labelled(
    stack: ImageStack, labels: Sequence[int] | Sequence[str] | None, source: ImageSource
) -> ImageSet:
    """Return the images with their classes, in the order of the source where it has one."""
    pixels = stack.images()
    if labels is None:
        return ImageSet(pixels)
    if source.kind == "metadata":
        numbers, names = number_labels(labels, None, source.tables[0])
    else:
        names = tuple(dict.fromkeys(source.classes))
        positions = {name: position for position, name in enumerate(names)}
        numbers = np.array([positions[str(label)] for label in labels], dtype=np.int64)
    return ImageSet(pixels, numbers[stack.kept], names)


def _broken(stack: ImageStack) -> dict[str, int]:
    return {"broken": len(stack.broken)} if stack.broken else {}


def _without_empty_classes(images: ImageSet) -> tuple[ImageSet, str]:
    """Return the images without classes that have none, and a remark on these."""
    if images.labels is None:
        return images, ""
    counts = np.bincount(images.labels, minlength=images.num_classes)
    if counts.all():
        return images, ""
    empty = [name for name, count in zip(images.class_names, counts, strict=True) if not count]
    kept = tuple(name for name, count in zip(images.class_names, counts, strict=True) if count)
    renumbered = np.cumsum(counts > 0) - 1
    named = ", ".join(empty[:_NAMED_CLASSES]) + (" ..." if len(empty) > _NAMED_CLASSES else "")
    remark = f"{len(empty)} declared classes have no image and do not count: {named}"
    return ImageSet(images.images, renumbered[images.labels], kept), remark


def _account(source: ImageSource, images: ImageSet, remarks: Sequence[str], found: _Found) -> None:
    left_out = Counter(source.left_out) + Counter(found.left_out)
    parts = [*remarks, *(f"{count} {name}" for name, count in found.conversions.items())]
    text = f" ({'; '.join(parts)})" if parts else ""
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        text += f"; left out {reasons}"
    level = logging.WARNING if left_out.keys() - {HIDDEN} else logging.INFO
    logger.log(
        level,
        "Read %s (%d x %d px, %s, %s) from %s%s",
        counted(images.num_images, "image"), images.image_size, images.image_size,
        "grey" if images.channels == 1 else "RGB",
        "no labels" if images.labels is None else counted(images.num_classes, "class", "classes"),
        readable_name(source.path), text,
    )  # fmt: skip


def _read_file(file: Path) -> tuple[bytes, str]:
    try:
        return file.read_bytes(), readable_name(file)
    except OSError as error:
        raise DataError(f"{readable_name(file)} cannot be read: {error.strerror}") from error
