"""The one in-memory form of images with labels, checked when it is made."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from phoenix_pipeline.errors import DataError

MIN_SIDE, MAX_SIDE = 8, 256


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size with their labels.

    ``images``: uint8 [N, C, S, S], C in {1, 3}, values 0..255. ``labels``: int64 [N] in
    0..len(class_names)-1, or None when unlabelled. ``class_names``: () when unlabelled.
    Raises DataError when the parts do not fit together.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_images(self.images)
        if self.labels is None:
            return
        if self.labels.shape != (len(self.images),):
            raise DataError(
                f"{len(self.images)} images have labels of shape {self.labels.shape}; "
                f"one label per image is needed"
            )
        low, high = int(self.labels.min(initial=0)), int(self.labels.max(initial=-1))
        if low < 0 or high >= len(self.class_names):
            raise DataError(
                f"labels range from {low} to {high}; with {len(self.class_names)} class names "
                f"they must be 0 to {len(self.class_names) - 1}"
            )

    @property
    def num_images(self) -> int:
        """Number of images, N."""
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of declared classes; 0 when unlabelled."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return int(self.images.shape[1])

    @property
    def image_size(self) -> int:
        """Side in pixels."""
        return int(self.images.shape[2])

    def fingerprint(self) -> str:
        """Return the sha256 of shape, images, labels and class names, computed once."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(repr((self.images.shape, self.class_names)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).data)
        return digest.hexdigest()

    def subset(self, indices: Any) -> "ImageSet":
        """Return a copy of the images at ``indices`` (integers or a mask), in that order."""
        labels = None if self.labels is None else self.labels[indices]
        return ImageSet(self.images[indices], labels, self.class_names)


def align_classes(images: ImageSet, class_names: tuple[str, ...]) -> ImageSet:
    """Renumber labels to index ``class_names``, by name; raises DataError for another class."""
    if images.labels is None or images.class_names == class_names:
        return images
    present = [images.class_names[label] for label in np.unique(images.labels)]
    unknown = [name for name in present if name not in class_names]
    if unknown:
        raise DataError(
            f"class {unknown[0]!r} is not among the training classes ({', '.join(class_names)}); "
            f"both splits need the same class names"
        )
    positions = {name: position for position, name in enumerate(class_names)}
    renumbered = np.array([positions.get(name, -1) for name in images.class_names], dtype=np.int64)
    return ImageSet(images.images, renumbered[images.labels], class_names)


def _check_images(images: np.ndarray) -> None:
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(
            f"images are {images.dtype} of shape {images.shape}; uint8 [N, C, S, S] is needed"
        )
    if images.shape[1] not in (1, 3):
        raise DataError(f"images have {images.shape[1]} channels; 1 (grey) or 3 (RGB) are allowed")
    if images.shape[2] != images.shape[3]:
        raise DataError(
            f"images are {images.shape[3]}x{images.shape[2]} px; they must be square: "
            f"set images.image_size"
        )
