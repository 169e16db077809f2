"""Large files are decoded side by side: order, memory for few at a time, the first error."""

from collections.abc import Iterator

import numpy as np
import pytest

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import encode_png, stack
from phoenix_pipeline.images.stack import ImageStack

SIDE = 64


def noise(count: int) -> np.ndarray:
    """Return images whose PNG files are larger than ``_LEAST_BYTES``."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)


def files(images: np.ndarray) -> list[tuple[bytes, str]]:
    return [(encode_png(image), f"image {index}") for index, image in enumerate(images)]


@pytest.mark.parametrize("cores", [1, 3])
def test_large_files_keep_their_order(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "available_cores", lambda: cores)
    monkeypatch.setattr(stack, "_CHUNK_IMAGES", 7)
    images = noise(17)
    target = ImageStack(len(images), ImagesConfig())
    target.add_all(files(images))
    assert np.array_equal(target.images(), images)


def test_the_first_broken_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "available_cores", lambda: 3)
    encoded = files(noise(9))
    for broken in (8, 4):
        encoded[broken] = (encoded[broken][0][:5000], f"image {broken}")
    with pytest.raises(DataError, match="image 4 cannot be decoded"):
        ImageStack(9, ImagesConfig()).add_all(encoded)


def test_few_large_files_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = files(noise(6))
    monkeypatch.setattr(stack, "_CHUNK_BYTES", 2 * min(len(data) for data, _ in encoded))
    filled_when_asked = []
    target = ImageStack(6, ImagesConfig())

    def give() -> Iterator[tuple[bytes, str]]:
        for pair in encoded:
            filled_when_asked.append(target._filled)
            yield pair

    target.add_all(give())
    assert filled_when_asked == [0, 0, 2, 2, 4, 4]


def test_few_broken_files_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    images = noise(5)
    encoded = files(images)
    encoded[2] = (encoded[2][0][:900], "image 2")
    target = ImageStack(5, ImagesConfig(max_broken_fraction=0.2))
    with caplog.at_level("WARNING"):
        target.add_all(encoded)
    assert np.array_equal(target.images(), images[[0, 1, 3, 4]])
    assert target.kept.tolist() == [True, True, False, True, True]
    assert "image 2 cannot be decoded" in caplog.text
    with pytest.raises(DataError, match=r"of 5 images 1 are broken.*max_broken_fraction \(0\.19\)"):
        ImageStack(5, ImagesConfig(max_broken_fraction=0.19)).add_all(encoded)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2]])
def test_grey_among_colour_becomes_colour(order: list[int]) -> None:
    colour, grey = noise(1)[0], noise(2)[1][:1]
    images = [grey, colour, grey]
    given = [images[index] for index in order]
    target = ImageStack(3, ImagesConfig())
    target.add_all([(encode_png(image), f"{index}") for index, image in enumerate(given)])
    expected = np.stack([np.broadcast_to(image, (3, SIDE, SIDE)) for image in given])
    assert np.array_equal(target.images(), expected)
    assert target.conversions == {"grey, read as RGB like the others": 2}
