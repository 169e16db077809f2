"""Single images: bytes to uint8 and back, the model's range [-1, 1], and grids to look at."""

import io
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from phoenix_pipeline.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# Named, because Pillow would otherwise also hand PostScript to an outside interpreter.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
_STORED_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}
_CONVERTIBLE = {"LA": 2, "PA": 2, "La": 2, "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4, "YCbCr": 3}
_GRID_GAP = 2
_GRID_BACKGROUND = 255


def to_model_range(images: "Tensor") -> "Tensor":
    """Map uint8 0..255 to float32 [-1, 1], on the same device."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: "Tensor") -> "Tensor":
    """Map float [-1, 1] to uint8 0..255, rounded; values outside are clipped."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0).byte()


def decode_image(
    data: bytes, channels: int | None = None, image_size: int | None = None
) -> np.ndarray:
    """Decode an image file to uint8 [C, H, W].

    ``channels`` 1 or 3 converts; None keeps grey or RGB as stored. ``image_size`` scales the
    shorter side (antialiased bicubic) and crops the centre; None keeps the size. Raises DataError
    for undecodable bytes and for channel counts or depths that would need a silent conversion.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.load()
            upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
    except Exception as error:  # Pillow's plug-ins raise almost anything on broken bytes.
        reason = str(error).split("<")[0].strip() or type(error).__name__
        raise DataError(f"cannot be decoded as an image ({len(data)} bytes): {reason}") from error
    converted = _convert(upright, channels)
    if image_size is not None and converted.size != (image_size, image_size):
        converted = ImageOps.fit(converted, (image_size, image_size), Image.Resampling.BICUBIC)
    pixels = np.asarray(converted)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _convert(image: Image.Image, channels: int | None) -> Image.Image:
    stored = _STORED_CHANNELS.get(image.mode)
    if image.mode == "P" and "transparency" in image.info:
        stored = None
    if stored is None and image.mode not in (*_CONVERTIBLE, "P"):
        raise DataError(
            f"has pixels of type {image.mode}; only 8 bits per channel, grey or RGB, are read"
        )
    if stored is None and channels is None:
        raise DataError(
            f"has {_CONVERTIBLE.get(image.mode, 4)} channels ({image.mode}); 1 (grey) or 3 (RGB) "
            f"are read as stored: set images.channels to 1 or 3 to convert"
        )
    mode = "L" if (channels or stored) == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 [C, H, W], C in {1, 3}, as PNG bytes."""
    buffer = io.BytesIO()
    _to_pillow(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _to_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(
        np.ascontiguousarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))
    )


def image_grid(images: np.ndarray, columns: int | None = None, min_side: int = 64) -> Image.Image:
    """Tile uint8 [N, C, S, S] row by row on white.

    ``columns`` None: a square arrangement. Images smaller than ``min_side`` pixels are enlarged by
    a whole factor without smoothing, so that small pixels stay pixels. Raises DataError when N = 0.
    """
    if len(images) == 0:
        raise DataError("a grid of no images was asked for; at least one is needed")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    factor = max(1, math.ceil(min_side / images.shape[2]))
    enlarged = images.repeat(factor, axis=2).repeat(factor, axis=3)
    cell = enlarged.shape[2] + _GRID_GAP
    canvas = np.full(
        (images.shape[1], rows * cell + _GRID_GAP, columns * cell + _GRID_GAP),
        _GRID_BACKGROUND,
        dtype=np.uint8,
    )
    for position, image in enumerate(enlarged):
        top, left = (_GRID_GAP + cell * index for index in divmod(position, columns))
        canvas[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    return _to_pillow(canvas)
