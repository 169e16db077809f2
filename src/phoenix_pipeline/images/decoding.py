"""One image file to uint8 pixels: header first, upright, converted, made square and resized."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.conversion import to_eight_bits
from phoenix_pipeline.images.formats import missing_decoder, readable_formats
from phoenix_pipeline.images.image_set import MAX_SIDE, MIN_SIDE

FRAMES = "with several frames, of which the first"
# Formats that hold animations or stacks; the second picture of a camera's JPEG is a thumbnail.
_FORMATS_WITH_FRAMES = ("GIF", "TIFF", "WEBP", "PNG", "AVIF")


class BrokenImageError(DataError):
    """The bytes are not an image, or not all of one."""


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """``pixels``: uint8 [C, H, W], C in {1, 3}. ``conversions``: what was done to them."""

    pixels: np.ndarray
    conversions: tuple[str, ...]


def decode_image(data: bytes, config: ImagesConfig) -> DecodedImage:
    """Decode an image file as ``config`` says; see docs/own-data.md for every conversion.

    ``images.image_size`` scales (antialiased bicubic), and ``images.fit`` says what becomes of
    images that are not square; None keeps the size, which must be square then. Sizes are checked
    before pixels are read.
    Raises BrokenImageError: the bytes cannot be decoded.
    Raises DataError: the image is too large, or its pixels need a setting that is missing.
    """
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            _check_header(image, config)
            frames = image.format in _FORMATS_WITH_FRAMES and getattr(image, "n_frames", 1) > 1
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
    except DataError:
        raise
    except Exception as error:  # Pillow's plug-ins raise almost anything on broken bytes.
        raise BrokenImageError(_why_broken(data, error)) from error
    converted, conversions = to_eight_bits(image, config)
    side = config.image_size
    if side is not None and converted.size != (side, side):
        converted = _fit(converted, side, config)
    pixels = np.asarray(converted)
    return DecodedImage(
        pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1),
        (*conversions, *([FRAMES] if frames else [])),
    )


def _fit(image: Image.Image, side: int, config: ImagesConfig) -> Image.Image:
    """Return ``image`` as a square of ``side`` pixels."""
    square, method = (side, side), Image.Resampling.BICUBIC
    if config.fit == "pad":
        return ImageOps.pad(image, square, method, color=config.background)
    if config.fit == "stretch":
        return image.resize(square, method)
    return ImageOps.fit(image, square, method)


def _check_header(image: Image.Image, config: ImagesConfig) -> None:
    width, height = image.size
    megapixels = width * height / 1e6
    if megapixels > config.max_megapixels:
        raise DataError(
            f"is {width}x{height} px, {megapixels:.3g} megapixels, more than images.max_megapixels "
            f"({config.max_megapixels:g}): raise that to {-(-width * height // 10**6)} (each such "
            f"image takes about {4 * megapixels:.0f} MB while it is read), or make the file smaller"
        )
    if config.image_size is None and (width != height or not MIN_SIDE <= width <= MAX_SIDE):
        raise DataError(
            f"is {width}x{height} px; images must be square, {MIN_SIDE} to {MAX_SIDE} px: set "
            f"images.image_size to resize all of them, and images.fit to crop, pad or stretch them"
        )


def _why_broken(data: bytes, error: Exception) -> str:
    missing = missing_decoder(data[:16])
    if missing is not None:
        return (
            f"cannot be decoded as an image ({len(data)} bytes): it is {missing.name}, for which "
            f"there is no decoder: {missing.remedy}"
        )
    reason = str(error).split("<")[0].strip() or type(error).__name__
    return f"cannot be decoded as an image ({len(data)} bytes): {reason}"
