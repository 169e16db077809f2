"""Decode images of one size into one preallocated array, so that memory holds them once."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.hardware import available_cores
from phoenix_pipeline.images.encoding import decode_image
from phoenix_pipeline.images.image_set import MAX_SIDE, MIN_SIDE

Encoded = tuple[bytes, str]

_CHUNK_IMAGES = 256
_CHUNK_BYTES = 1 << 24
# Pillow parses headers with the interpreter locked: files that are smaller, on average of a chunk,
# are read sooner by one thread.
_LEAST_BYTES = 4096


class ImageStack:
    """An array of ``num_images`` images that is filled in order.

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

    def add_all(self, encoded: Iterable[Encoded]) -> None:
        """Decode (file's bytes, name) pairs into the next places, large ones on all cores.

        The name says in errors which image it is. Raises DataError for the first image that cannot
        be decoded or is unlike the first one.
        """
        with ThreadPoolExecutor(available_cores(), "decode") as pool:
            for chunk in _chunks(encoded):
                for (_, name), image in zip(chunk, self._decoded(chunk, pool), strict=True):
                    self._place(image, name)

    def _decoded(self, chunk: Sequence[Encoded], pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
        if sum(len(data) for data, _ in chunk) < _LEAST_BYTES * len(chunk):
            yield from map(self._decode, chunk)
            return
        size = -(-len(chunk) // available_cores())
        parts = [chunk[start : start + size] for start in range(0, len(chunk), size)]
        for images in pool.map(lambda part: [*map(self._decode, part)], parts):
            yield from images

    def _decode(self, encoded: Encoded) -> np.ndarray:
        data, name = encoded
        try:
            return decode_image(data, self._channels, self._image_size)
        except DataError as error:
            raise DataError(f"{name} {error}") from error

    def _place(self, image: np.ndarray, name: str) -> None:
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


def _chunks(encoded: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Divide by number and by bytes, so that few large files are in memory at a time."""
    chunk: list[Encoded] = []
    held = 0
    for data, name in encoded:
        chunk.append((data, name))
        held += len(data)
        if len(chunk) == _CHUNK_IMAGES or held >= _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
