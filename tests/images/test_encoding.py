"""Bytes to pixels and back, the model's range, grids."""

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import decode_image, encode_png, image_grid, to_model_range, to_uint8

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


def test_model_range_ends_and_inverse():
    values = torch.arange(256, dtype=torch.uint8)
    scaled = to_model_range(values)
    assert scaled.dtype == torch.float32
    assert scaled[0] == -1 and scaled[255] == 1
    assert torch.equal(to_uint8(scaled), values)


def test_to_uint8_clips_rounds_and_leaves_its_input():
    given = torch.tensor([-3.0, -1.0, 0.0, 0.9999, 7.0])
    before = given.clone()
    assert to_uint8(given).tolist() == [0, 0, 128, 255, 255]
    assert torch.equal(given, before)


@pytest.mark.parametrize("image", [COLOURS, COLOURS[:1]])
def test_png_round_trip_is_exact(image):
    assert np.array_equal(decode_image(encode_png(image), ImagesConfig()).pixels, image)


def test_grid_places_enlarged_images_row_by_row():
    images = np.stack([np.full((1, 8, 8), value, np.uint8) for value in (10, 20, 30)])
    grid = np.asarray(image_grid(images, columns=2, min_side=20))
    assert grid.shape == (2 * 26 + 2, 2 * 26 + 2)  # 8 px x 3, plus gaps of 2.
    assert [grid[14, 14], grid[14, 40], grid[40, 14], grid[40, 40]] == [10, 20, 30, 255]
    assert (grid == 10).sum() == 24 * 24


def test_grid_is_square_by_default_and_refuses_nothing():
    assert image_grid(np.zeros((9, 3, 64, 64), np.uint8)).size == (3 * 66 + 2, 3 * 66 + 2)
    with pytest.raises(DataError, match="at least one"):
        image_grid(np.zeros((0, 3, 8, 8), np.uint8))
