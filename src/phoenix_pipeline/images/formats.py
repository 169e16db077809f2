"""Which image files can be read here, by suffix and by their first bytes; decoders are optional."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from PIL import Image, features

from phoenix_pipeline.extras import how_to_install

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
