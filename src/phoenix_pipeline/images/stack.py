"""Decode images of one size into one preallocated array, so that memory holds them once."""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from PIL import Image

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.hardware import available_cores
from phoenix_pipeline.images.decoding import BrokenImageError, DecodedImage, decode_image
from phoenix_pipeline.images.formats import readable_formats
from phoenix_pipeline.images.image_set import MAX_SIDE, MIN_SIDE

logger = logging.getLogger(__name__)

Encoded = tuple[bytes, str]

_CHUNK_IMAGES = 256
_CHUNK_BYTES = 1 << 24
# Pillow parses headers with the interpreter locked: files that are smaller, on average of a chunk,
# are read sooner by one thread.
_LEAST_BYTES = 4096
_NAMED_BROKEN = 3
# 0.29 x 100 is 28.999999999999996.
_ROUNDING = 1e-6
MIXED_GREY = "grey, read as RGB like the others"
_READING = threading.RLock()


class ImageStack:
    """An array of ``num_images`` images that is filled in order.

    The first image decides the size unless ``images.image_size`` asks for one; every other must
    agree. Grey and RGB together become RGB. ``conversions`` counts what was done to the images,
    ``broken`` holds the position and error of those that could not be decoded.
    """

    def __init__(self, num_images: int, config: ImagesConfig) -> None:
        self.conversions: Counter[str] = Counter()
        self.broken: dict[int, str] = {}
        self._num_images = num_images
        self._config = config
        self._images: np.ndarray | None = None
        self._first = ""
        self._filled = 0
        self._seen = 0

    def add_all(self, encoded: Iterable[Encoded]) -> None:
        """Decode (file's bytes, name) pairs into the next places, large ones on all cores.

        The name says in errors which image it is.
        Raises DataError: an image is unlike the first one or needs a setting, or more images are
        broken than ``images.max_broken_fraction`` allows.
        """
        readable_formats()
        with _own_pixel_limit(), ThreadPoolExecutor(available_cores(), "decode") as pool:
            for chunk in _chunks(encoded):
                for (_, name), image in zip(chunk, self._decoded(chunk, pool), strict=True):
                    if isinstance(image, str):
                        self.broken[self._seen] = image
                    else:
                        self.conversions.update(image.conversions)
                        self._place(image.pixels, name)
                    self._seen += 1
        self._check_broken()

    @property
    def kept(self) -> np.ndarray:
        """Bool [number of images given]: which of them are in the array."""
        kept = np.ones(self._seen, dtype=bool)
        kept[list(self.broken)] = False
        return kept

    def images(self) -> np.ndarray:
        """Return the filled array, uint8 [N, C, S, S], without the broken ones."""
        if self._images is None or self._filled + len(self.broken) != self._num_images:
            raise DataError(f"{self._filled} of {self._num_images} images could be read")
        return self._images[: self._filled]

    def _decoded(
        self, chunk: Sequence[Encoded], pool: ThreadPoolExecutor
    ) -> Iterator[DecodedImage | str]:
        if sum(len(data) for data, _ in chunk) < _LEAST_BYTES * len(chunk):
            yield from map(self._decode, chunk)
            return
        size = -(-len(chunk) // available_cores())
        parts = [chunk[start : start + size] for start in range(0, len(chunk), size)]
        for images in pool.map(lambda part: [*map(self._decode, part)], parts):
            yield from images

    def _decode(self, encoded: Encoded) -> DecodedImage | str:
        data, name = encoded
        try:
            return decode_image(data, self._config)
        except BrokenImageError as error:
            return f"{name} {error}"
        except DataError as error:
            raise DataError(f"{name} {error}") from error

    def _place(self, image: np.ndarray, name: str) -> None:
        _, height, width = image.shape
        if self._images is None:
            try:
                self._images = np.empty((self._num_images, *image.shape), dtype=np.uint8)
            except MemoryError as error:
                raise DataError(
                    f"{self._num_images} images of {width}x{height} px do not fit into memory; "
                    f"set a smaller images.image_size or give fewer images"
                ) from error
            self._first = name
        elif image.shape[1:] != self._images.shape[2:]:
            side = self._images.shape[2]
            raise DataError(
                f"{name} is {width}x{height} px, unlike {self._first} with {side}x{side} px; set "
                f"images.image_size ({MIN_SIDE} to {MAX_SIDE}) to resize all of them"
            )
        if len(image) > self._images.shape[1]:
            self._images = self._images.repeat(len(image), axis=1)
            self.conversions[MIXED_GREY] += self._filled
        elif len(image) < self._images.shape[1]:
            self.conversions[MIXED_GREY] += 1
        self._images[self._filled] = image
        self._filled += 1

    def _check_broken(self) -> None:
        if not self.broken:
            return
        first, allowed = next(iter(self.broken.values())), self._config.max_broken_fraction
        if self._filled == 0 or len(self.broken) > allowed * self._seen + _ROUNDING:
            raise DataError(
                f"{first}; of {self._seen} images {len(self.broken)} are broken, more than "
                f"images.max_broken_fraction ({allowed:g}) allows: remove them, or raise that to "
                "leave them out"
            )
        for line in list(self.broken.values())[:_NAMED_BROKEN]:
            logger.warning("left out: %s", line)


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    """Switch off Pillow's limit, which holds for the whole process: ours is a setting."""
    with _READING:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


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
