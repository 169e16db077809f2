"""Names are text in any Unicode, or bytes that are shown escaped."""

import os
from pathlib import Path

import numpy as np
import pytest

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import encode_png, read_images, readable_name

PNG = encode_png(np.full((3, 8, 8), 7, np.uint8))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain $x$ name", "plain $x$ name"),
        ("图像 ✨", "图像 ✨"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_names_become_one_line_of_valid_text(name, shown):
    assert readable_name(name) == shown
    assert shown.encode("utf-8").decode() == shown


def test_folders_of_any_bytes_are_classes(tmp_path):
    for name in (b"caf\xe9", "图像".encode(), b"US$ 5"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        Path(os.fsdecode(folder + b"/\xff.png")).write_bytes(PNG)
    images = read_images(tmp_path, ImagesConfig())
    assert set(images.class_names) == {"US$ 5", r"caf\xe9", "图像"}


def test_a_broken_file_of_any_name_is_named_in_text(tmp_path):
    (tmp_path / "a").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff.png")).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"\\xff\.png cannot be decoded") as caught:
        read_images(tmp_path, ImagesConfig())
    str(caught.value).encode("utf-8")
