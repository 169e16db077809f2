"""Any pixels to 8-bit grey or RGB: transparency, deep grey, CMYK, palettes. Sizes are not touched.

Every conversion that changes what is seen is named in the result, so that it can be reported.
"""

import numpy as np
from PIL import Image, ImageColor

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError

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
