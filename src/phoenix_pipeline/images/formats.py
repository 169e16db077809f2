"""Which image files can be read here, by suffix and first bytes; and images as PNG and grids."""

import io
import math
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, features

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.extras import how_to_install

if TYPE_CHECKING:
    from torch import Tensor


# Named, because Pillow would otherwise also hand PostScript to an outside interpreter.
_PLAIN_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm",
    ".tif", ".tiff",
)  # fmt: skip


@dataclass(frozen=True)
class OptionalFormat:
    """A format that needs a decoder which may be missing."""

    name: str
    suffixes: tuple[str, ...]
    remedy: str


_HEIF = OptionalFormat("HEIF", (".heic", ".heif", ".hif"), how_to_install("formats"))
_JXL = OptionalFormat("JXL", (".jxl",), how_to_install("formats"))
_AVIF = OptionalFormat("AVIF", (".avif",), "a Pillow with AVIF, 11.3 or newer")
_JPEG2000 = OptionalFormat("JPEG2000", (".jp2", ".j2k", ".jpx"), "a Pillow with JPEG 2000")
_BY_SUFFIX = {s: f for f in (_HEIF, _JXL, _AVIF, _JPEG2000) for s in f.suffixes}

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_SIGNATURES = (
    (b"\xff\x0a", _JXL),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", _JXL),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", _JPEG2000),
    (b"\xff\x4f\xff\x51", _JPEG2000),
)


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that can be decoded; registers the optional ones."""
    found = [*_PLAIN_FORMATS]
    found += [_AVIF.name] if features.check("avif") else []
    found += [_JPEG2000.name] if features.check("jpg_2000") else []
    try:
        import_module("pillow_heif").register_heif_opener()
        found.append(_HEIF.name)
    except ImportError:
        pass
    try:
        import_module("pillow_jxl")  # registers itself
        found.append(_JXL.name)
    except ImportError:
        pass
    Image.init()
    return tuple(found)


def is_image_suffix(suffix: str) -> bool:
    """Tell whether a lower-case suffix is that of an image, be there a decoder for it or not."""
    return suffix in IMAGE_SUFFIXES or suffix in _BY_SUFFIX


def missing_decoder(data: bytes) -> OptionalFormat | None:
    """Return the format of a file that begins with ``data``, if it has no decoder here."""
    found = _signed(data)
    return found if found and found.name not in readable_formats() else None


def lacks_decoder(file: Path) -> OptionalFormat | None:
    """Return the format of ``file`` if nothing here decodes it, by its content, or None."""
    named = _BY_SUFFIX.get(file.suffix.lower())
    if named is None or named.name in readable_formats():
        return None
    with file.open("rb") as stream:
        return missing_decoder(stream.read(16))


def _signed(data: bytes) -> OptionalFormat | None:
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return _AVIF if brand in (b"avif", b"avis") else _HEIF if brand in _HEIF_BRANDS else None
    return next((found for start, found in _SIGNATURES if data.startswith(start)), None)


_GRID_GAP = 2
_GRID_BACKGROUND = 255


def to_model_range(images: "Tensor") -> "Tensor":
    """Map uint8 0..255 to float32 [-1, 1], on the same device."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: "Tensor") -> "Tensor":
    """Map float [-1, 1] to uint8 0..255, rounded; values outside are clipped."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0.0, 255.0).byte()


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
