"""One image file to 8-bit pixels: every conversion by value."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import decode_image, encode_png
from phoenix_pipeline.images.stack import ImageStack

COLOURS = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
UPRIGHT = Image.fromarray(COLOURS.transpose(1, 2, 0))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def decode(data: bytes, **settings: object) -> np.ndarray:
    return decode_image(data, ImagesConfig.model_validate(settings)).pixels


def full(mode: str, colour: object, side: int = 8) -> Image.Image:
    return Image.new(mode, (side, side), colour)


def test_channels_are_converted_on_request_only():
    png = encode_png(COLOURS)
    assert decode(png).shape == (3, 8, 8)
    grey = decode(png, channels=1)
    red, green, blue = COLOURS.astype(float)
    assert np.abs(grey[0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1
    assert np.array_equal(decode(encode_png(grey), channels=3), grey.repeat(3, axis=0))


def test_palette_images_are_read_as_their_colours():
    palette = UPRIGHT.quantize(64)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(encode(palette)), expected)


def test_resizing_crops_the_centre_and_keeps_the_aspect_ratio():
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 16:32] = 200
    assert np.array_equal(
        decode(encode(Image.fromarray(wide)), image_size=16), np.full((1, 16, 16), 200)
    )


def test_padding_keeps_all_of_an_image_on_the_background():
    wide = encode(Image.fromarray(np.full((8, 32), 90, dtype=np.uint8)))
    padded = decode(wide, image_size=16, fit="pad", background="#0a0a0a")
    # 32 x 8 becomes 16 x 4, in the middle of 16 rows.
    assert (padded[0, 6:10] == 90).all()
    assert (padded[0, :6] == 10).all() and (padded[0, 10:] == 10).all()
    colours = Image.new("RGB", (4, 16), (1, 2, 3))
    tall = decode(encode(colours), image_size=8, fit="pad", background="red")
    assert (tall[:, 0, 0] == (255, 0, 0)).all() and (tall[:, 4, 4] == (1, 2, 3)).all()


def test_stretching_keeps_all_of_an_image_out_of_shape():
    halves = np.repeat(np.array([[0, 200]], dtype=np.uint8), 32, axis=1).repeat(16, axis=0)
    stretched = decode(encode(Image.fromarray(halves)), image_size=16, fit="stretch")
    assert (stretched[0, :, :5] == 0).all() and (stretched[0, :, 11:] == 200).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_square_image_is_the_same_whatever_the_fit(fit):
    big = encode(Image.fromarray(COLOURS.transpose(1, 2, 0)).resize((20, 20)))
    assert np.array_equal(decode(big, image_size=10, fit=fit), decode(big, image_size=10))


# Black, with the given alpha, on white: 255 * (1 - alpha / 255).
@pytest.mark.parametrize(("alpha", "seen"), [(0, 255), (255, 0), (96, 159)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_put_on_white(mode, alpha, seen):
    colour = (*(0,) * (len(mode) - 1), alpha)
    image = decode_image(encode(full(mode, colour)), ImagesConfig())
    assert image.pixels.shape == ((3 if mode == "RGBA" else 1), 8, 8)
    assert np.abs(image.pixels.astype(int) - seen).max() <= 1
    assert image.conversions == ("with alpha, put on white",)


def test_alpha_is_put_on_the_colour_that_was_asked_for():
    half = encode(full("RGBA", (200, 100, 0, 128)))
    seen = decode(half, background="#0000ff")[:, 0, 0].astype(int)
    expected = [200 * 128 / 255, 100 * 128 / 255, 255 * 127 / 255]
    assert np.abs(seen - expected).max() <= 1
    # Grey on a coloured ground is no longer grey.
    assert decode(encode(full("LA", (0, 0))), background="red")[:, 0, 0].tolist() == [255, 0, 0]
    with pytest.raises(ValueError, match="blackish"):
        ImagesConfig(background="blackish")


def test_hidden_colours_of_transparent_pixels_are_never_seen():
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., 1] = 255  # green, and nowhere opaque
    pixels[4:12, 4:12] = (0, 0, 0, 255)
    seen = decode(encode(Image.fromarray(pixels)), image_size=8)
    assert np.array_equal(seen[0], seen[1])  # Composited before resizing: no green fringe.
    assert seen[0, 0, 0] == 255 and seen[0, 4, 4] == 0


def palette_image(transparency: object) -> bytes:
    image = Image.fromarray(np.array([[0, 1]] * 2, np.uint8), "P").resize((8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    return encode(image, transparency=transparency)


@pytest.mark.parametrize(
    ("transparency", "left"),
    [(0, [255, 255, 255]), (bytes([51, 255]), [206, 208, 210])],  # 10 * 0.2 + 255 * 0.8
)
def test_alpha_through_a_palette(transparency, left):
    seen = decode(palette_image(transparency))
    assert np.abs(seen[:, 0, 0].astype(int) - left).max() <= 1
    assert seen[:, 0, 7].tolist() == [200, 100, 50]


def test_a_colour_that_means_transparent():
    rgb = np.full((8, 8, 3), 7, np.uint8)
    rgb[0, 0] = (1, 2, 3)
    seen = decode(encode(Image.fromarray(rgb), transparency=(1, 2, 3)))
    assert seen[:, 0, 0].tolist() == [255] * 3 and seen[:, 1, 1].tolist() == [7] * 3
    grey = np.full((8, 8), 7, np.uint8)
    grey[0, 0] = 9
    seen = decode(encode(Image.fromarray(grey), transparency=9))
    assert seen.shape == (1, 8, 8) and seen[0, 0, 0] == 255 and seen[0, 1, 1] == 7


def deep(values: list[float], dtype: type, kind: str = "TIFF", **options: object) -> bytes:
    return encode(Image.fromarray(np.array([values] * 8, dtype)), kind, **options)


SIXTEEN = [0, 257, 1000, 2000, 4000, 30000, 65535, 65535]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_by_the_whole_range_or_a_window(kind):
    data = deep(SIXTEEN, np.uint16, kind)
    assert decode(data)[0, 0].tolist() == [0, 1, 4, 8, 16, 117, 255, 255]
    # (value - 1000) / 3000 * 255
    assert decode(data, window=(1000, 4000))[0, 0].tolist() == [0, 0, 0, 85, 255, 255, 255, 255]
    assert decode(data, window="1000..4000", channels=3).shape == (3, 8, 8)
    assert decode_image(data, ImagesConfig()).conversions == ("deep grey, by a window",)


def test_16_bit_grey_with_white_at_zero_is_turned_round():
    data = deep(SIXTEEN, np.uint16, tiffinfo={262: 0})
    assert decode(data)[0, 0].tolist() == [255, 254, 251, 247, 239, 138, 0, 0]


def test_float_and_signed_pixels_need_a_window_unless_they_are_shares():
    shares = deep([0, 0.2, 0.4, 0.6, 0.8, 1, np.nan, 0], np.float32)
    assert decode(shares)[0, 0].tolist() == [0, 51, 102, 153, 204, 255, 0, 0]
    hounsfield = [-1000, -500, 0, 500, 1000, 1500, 2000, 3000]
    for dtype in (np.int32, np.float32):
        data = deep(hounsfield, dtype)
        with pytest.raises(DataError, match=r"from -1000 to 3000; .*window=-1000\.\.3000"):
            decode(data)
        assert decode(data, window="-1000..1000")[0, 0].tolist() == [
            0, 64, 128, 191, 255, 255, 255, 255,
        ]  # fmt: skip


@pytest.mark.parametrize("window", [(5, 5), (9, 1)])
def test_windows_rise(window):
    with pytest.raises(ValueError, match="rising"):
        ImagesConfig(window=window)


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (full("CMYK", (0, 255, 255, 0)), [255, 0, 0]),
        (full("CMYK", (0, 0, 0, 255)), [0, 0, 0]),
        (full("1", 1), [255]),
        (full("1", 0), [0]),
    ],
)
def test_cmyk_and_1_bit(image, seen):
    assert decode(encode(image, "TIFF"))[:, 0, 0].tolist() == seen


def test_a_colour_space_without_a_conversion_is_refused():
    with pytest.raises(DataError, match="type LAB"):
        decode(encode(full("LAB", (1, 2, 3)), "TIFF"), channels=3)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def turned_files() -> dict[str, bytes]:
    """Return files stored turned; to be shown turned by 90 degrees clockwise."""
    stored = UPRIGHT.transpose(Image.Transpose.ROTATE_90)
    xmp = PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>')
    profile = PngImagePlugin.PngInfo()
    raw = exif(6).tobytes()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    return {
        "exif": encode(stored, exif=exif(6)),
        "xmp": encode(stored, pnginfo=xmp),
        "raw profile": encode(stored, pnginfo=profile),
        "tiff": encode(stored, "TIFF", tiffinfo={0x0112: 6}),
    }


@pytest.mark.parametrize("where", turned_files())
def test_turned_photographs_are_read_upright(where):
    assert np.array_equal(decode(turned_files()[where]), COLOURS)


@pytest.mark.parametrize("data", [b"", b"no image", encode_png(COLOURS)[:-60]])
def test_undecodable_bytes_are_refused(data):
    with pytest.raises(DataError, match="cannot be decoded"):
        decode(data)


def test_the_first_of_several_frames_is_read_and_said():
    frames = [full("L", value) for value in (10, 20)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image = decode_image(data, ImagesConfig(channels=1))
    assert (image.pixels == 10).all()
    assert image.conversions == ("with several frames, of which the first",)


def huge_png(side: int) -> bytes:
    """Return the header of a PNG that promises side x side pixels, and none of them."""
    png = encode(full("L", 0))
    header = side.to_bytes(4, "big") * 2 + png[24:29]
    chunk = b"IHDR" + header
    return png[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]


def test_sizes_are_checked_before_pixels():
    with pytest.raises(DataError, match=r"4096x4096 px; images must be square"):
        decode(huge_png(4096))
    stack = ImageStack(1, ImagesConfig(image_size=8))
    with pytest.raises(
        DataError, match=r"a\.png .*196 megapixels.*max_megapixels.*raise that to 196"
    ):
        stack.add_all([(huge_png(14000), "a.png")])


def test_the_limit_of_pixels_is_a_setting():
    data = encode(full("L", 9, 300))
    with pytest.raises(DataError, match=r"300x300 px, 0.09 megapixels"):
        decode(data, image_size=8, max_megapixels=0.05)
    assert (decode(data, image_size=8, max_megapixels=0.1) == 9).all()


def png_of_16_bits(values: np.ndarray) -> bytes:
    """Return a PNG of 16 bits per channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        content = kind + data
        return len(data).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")

    kind = {2: 4, 3: 2, 4: 6}[values.shape[2]]  # grey with alpha, RGB, RGBA
    header = b"".join(side.to_bytes(4, "big") for side in values.shape[:2])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part)
        for part in (
            (b"IHDR", header + bytes([16, kind, 0, 0, 0])),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bits_per_colour_give_the_upper_8(channels):
    values = np.full((8, 8, channels), 0xABCD, np.uint16)
    if channels != 3:
        values[..., -1] = 0xFFFF
    assert decode(png_of_16_bits(values)).max() == decode(png_of_16_bits(values)).min() == 0xAB
