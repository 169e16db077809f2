"""uint8 images as PNG bytes, in the model's range [-1, 1], and as grids to look at."""

import io
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from phoenix_pipeline.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

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
