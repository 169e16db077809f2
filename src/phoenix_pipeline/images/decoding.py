"""One image file to uint8 pixels: header first, upright, converted, made square and resized."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageOps

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.formats import missing_decoder, readable_formats
from phoenix_pipeline.images.image_set import MAX_SIDE, MIN_SIDE

ALPHA = "with alpha, put on {background}"
DEEP = "deep grey, by a window"
CMYK = "CMYK, without a colour profile"
_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
_UINT16_MAX = 65535
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262


def to_eight_bits(image: Image.Image, config: ImagesConfig) -> tuple[Image.Image, list[str]]:
    """Return ``image`` in mode L or RGB, and the names of the conversions that it took.

    Transparent images are composited on ``images.background``. Grey of more than 8 bits is mapped
    linearly by ``images.window``, values outside it clipped. ``images.channels`` 1 or 3 decides
    between L and RGB; None keeps grey as grey.
    Raises DataError: float or 32-bit pixels need a window, or the colour space is not converted.
    """
    done: list[str] = []
    key = None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        key = image.info.get("transparency")
        image, opaque = _windowed(image, config, key)
        done.append(DEEP)
        if opaque is not None:
            image.putalpha(opaque)
    elif image.mode not in (*_GREY_MODES, *_COLOUR_MODES):
        raise DataError(
            f"has pixels of type {image.mode}, which are not converted; save it as grey or RGB"
        )
    is_grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        done.append(ALPHA.format(background=config.background))
        image = _composited(image, config.background)
        is_grey = is_grey and len(set(_rgb(config.background))) == 1
    elif image.mode == "CMYK":
        done.append(CMYK)
    mode = "L" if (config.channels or (1 if is_grey else 3)) == 1 else "RGB"
    return (image if image.mode == mode else image.convert(mode)), done


def _composited(image: Image.Image, background: str) -> Image.Image:
    """Return RGB: the image over an opaque background, as a viewer shows it."""
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    layer = (image.convert(straight) if straight else image).convert("RGBA")
    canvas = Image.new("RGBA", layer.size, (*_rgb(background), 255))
    canvas.alpha_composite(layer)
    return canvas.convert("RGB")


def _rgb(colour: str) -> tuple[int, ...]:
    return ImageColor.getrgb(colour)[:3]


def _windowed(
    image: Image.Image, config: ImagesConfig, key: object
) -> tuple[Image.Image, Image.Image | None]:
    """Return mode L by the window, and where the image is opaque if one value is transparent."""
    values = np.asarray(image)
    if image.mode != "F" and _is_white_zero(image):
        values = _UINT16_MAX - values
    low, high = config.window or _default_window(image.mode, values)
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low) - low) * (255.0 / (high - low))
    grey = Image.fromarray(np.rint(scaled.clip(0.0, 255.0)).astype(np.uint8))
    if not isinstance(key, int):
        return grey, None
    return grey, Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))


def _is_white_zero(image: Image.Image) -> bool:
    """Tell TIFFs in which 0 is white, which Pillow turns round for 8 bits but not for 16."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _default_window(mode: str, values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if mode != "F" and low >= 0 and high <= _UINT16_MAX:
        return 0.0, float(_UINT16_MAX)
    if mode == "F" and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    kind = "float" if mode == "F" else "signed or 32-bit"
    raise DataError(
        f"has {kind} pixels from {low:g} to {high:g}; set images.window to the values that become "
        f"black and white, such as images.window={low:g}..{high:g}"
    )


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
