"""Decode images of one size into one preallocated array, so that memory holds them once."""

import numpy as np

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.encoding import decode_image
from phoenix_pipeline.images.image_set import MAX_SIDE, MIN_SIDE


class ImageStack:
    """An array of ``num_images`` images that is filled one by one.

    The first image decides size and channels unless ``channels`` or ``image_size`` ask for a
    conversion; every other must agree.
    """

    def __init__(self, num_images: int, channels: int | None, image_size: int | None) -> None:
        """Remember what is asked for; memory is taken when the first image is known."""
        self._num_images = num_images
        self._channels = channels
        self._image_size = image_size
        self._images: np.ndarray | None = None
        self._first = ""
        self._filled = 0

    def add(self, data: bytes, name: str) -> None:
        """Decode ``data`` into the next place; ``name`` says in errors which image it is.

        Raises DataError for undecodable bytes and for an image unlike the first one.
        """
        try:
            image = decode_image(data, self._channels, self._image_size)
        except DataError as error:
            raise DataError(f"{name} {error}") from error
        if self._images is None:
            self._images = self._allocate(image, name)
            self._first = name
        elif image.shape != self._images.shape[1:]:
            raise self._mismatch(image, name)
        self._images[self._filled] = image
        self._filled += 1

    def images(self) -> np.ndarray:
        """Return the filled array, uint8 [N, C, S, S]."""
        if self._images is None or self._filled != self._num_images:
            raise DataError(f"{self._filled} of {self._num_images} images could be read")
        return self._images

    def _allocate(self, image: np.ndarray, name: str) -> np.ndarray:
        _, height, width = image.shape
        if height != width or not MIN_SIDE <= height <= MAX_SIDE:
            raise DataError(
                f"{name} is {width}x{height} px; images must be square, {MIN_SIDE} to {MAX_SIDE} "
                f"px: set images.image_size to crop and resize all of them"
            )
        try:
            return np.empty((self._num_images, *image.shape), dtype=np.uint8)
        except MemoryError as error:
            raise DataError(
                f"{self._num_images} images of {width}x{height} px do not fit into memory; "
                f"set a smaller images.image_size or give fewer images"
            ) from error

    def _mismatch(self, image: np.ndarray, name: str) -> DataError:
        channels, height, width = image.shape
        expected, side, _ = self._images.shape[1:]  # type: ignore[union-attr]
        if (height, width) != (side, side):
            return DataError(
                f"{name} is {width}x{height} px, unlike {self._first} with {side}x{side} px; set "
                f"images.image_size ({MIN_SIDE} to {MAX_SIDE}) to crop and resize all of them"
            )
        return DataError(
            f"{name} has {channels} channels, unlike {self._first} with {expected}; set "
            f"images.channels to 1 (grey) or 3 (RGB) to convert all of them"
        )
