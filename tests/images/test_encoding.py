"""Bytes to pixels and back, the model's range, grids."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import decode_image, encode_png, image_grid, to_model_range, to_uint8

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


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
    assert np.array_equal(decode_image(encode_png(image)), image)


def test_channels_are_converted_on_request_only():
    png = encode_png(COLOURS)
    assert decode_image(png).shape == (3, 8, 8)
    grey = decode_image(png, channels=1)
    red, green, blue = COLOURS.astype(float)
    assert np.abs(grey[0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1
    assert np.array_equal(decode_image(encode_png(grey), channels=3), grey.repeat(3, axis=0))


def test_palette_images_are_read_as_their_colours():
    palette = Image.fromarray(COLOURS.transpose(1, 2, 0)).quantize(64)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode_image(encode(palette)), expected)


def test_resizing_crops_the_centre_and_keeps_the_aspect_ratio():
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 16:32] = 200
    assert np.array_equal(
        decode_image(encode(Image.fromarray(wide)), image_size=16), np.full((1, 16, 16), 200)
    )


def test_turned_photographs_are_read_upright():
    upright = Image.fromarray(COLOURS.transpose(1, 2, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored turned; to be shown turned by 90 degrees clockwise.
    stored = encode(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert np.array_equal(decode_image(stored), COLOURS)


@pytest.mark.parametrize("data", [b"", b"no image", encode_png(COLOURS)[:-60]])
def test_undecodable_bytes_are_refused(data):
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(data)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("LA", 2), ("CMYK", 4)])
def test_other_channel_counts_need_a_request(mode, channels):
    data = encode(Image.new(mode, (8, 8)), "TIFF")
    with pytest.raises(DataError, match=rf"{channels} channels .* images\.channels"):
        decode_image(data)
    assert decode_image(data, channels=3).shape == (3, 8, 8)


def test_more_than_8_bits_are_refused_even_on_request():
    data = encode(Image.fromarray(np.full((8, 8), 60000, dtype=np.uint16)))
    with pytest.raises(DataError, match="8 bits"):
        decode_image(data, channels=1)


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
