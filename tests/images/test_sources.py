"""Every file of a folder is read or counted with its reason; layouts as people have them."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.extras import how_to_install
from phoenix_pipeline.images import encode_png, find_image_source, find_splits, read_images
from phoenix_pipeline.images import formats as formats_module

PNG = encode_png(np.full((3, 8, 8), 7, np.uint8))


def fill(folder: Path, count: int = 2, suffix: str = ".png", data: bytes = PNG) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}{suffix}").write_bytes(data)


def shard(path: Path, labels: list | None = None, image: object = PNG) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"img": pa.array([{"bytes": image, "path": "x.png"}] * 2)}
    if labels is not None:
        columns["label"] = labels
    pq.write_table(pa.table(columns), path)


def read(path: Path, caplog: pytest.LogCaptureFixture, **settings: object):
    """Return the training images of ``path`` and the line about them."""
    caplog.clear()
    with caplog.at_level("INFO"):
        images = read_images(find_splits(path)[0], ImagesConfig(**settings))
    return images, caplog.messages[-1]


def test_what_is_left_out_is_counted_with_its_reason(tmp_path, caplog):
    fill(tmp_path / "cat")
    fill(tmp_path / "cat", 3, ".txt", b"notes")
    fill(tmp_path / "cat" / ".cache", 1)
    fill(tmp_path / "__MACOSX", 1)
    os.symlink("/nowhere/x.png", tmp_path / "cat/gone.png")
    os.symlink(tmp_path, tmp_path / "cat/ring")
    (tmp_path / "notes").write_text("x")
    images, line = read(tmp_path, caplog)
    assert images.num_images == 2
    assert "Read 2 images (8 x 8 px, RGB, 1 class)" in line
    for reason in (
        "3 .txt (not a format that is read)", "1 without a suffix", "1 broken links", "2 hidden",
        "1 links to a folder above",
    ):  # fmt: skip
        assert reason in line
    assert caplog.records[-1].levelname == "WARNING"


def test_jfif_is_jpeg_and_avif_is_read(tmp_path):
    image = Image.new("RGB", (8, 8), (200, 30, 40))
    for suffix, kind in ((".jfif", "JPEG"), (".AVIF", "AVIF"), (".jp2", "JPEG2000")):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        fill(tmp_path / "a", 1, suffix, buffer.getvalue())
    pixels = read_images(tmp_path, ImagesConfig()).images
    assert len(pixels) == 3
    assert np.abs(pixels[:, :, 4, 4].astype(int) - (200, 30, 40)).max() <= 3


@pytest.fixture
def without_plugins(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    formats_module.readable_formats.cache_clear()
    monkeypatch.setattr(formats_module, "import_module", missing)
    yield
    formats_module.readable_formats.cache_clear()


HEIC = b"\0\0\0\x1cftypheic" + bytes(50)
JXL = b"\xff\x0a" + bytes(50)


@pytest.mark.usefixtures("without_plugins")
def test_formats_without_a_decoder_are_named_with_the_remedy(tmp_path, caplog):
    command = re.escape(how_to_install("formats"))
    fill(tmp_path / "some/cat")
    fill(tmp_path / "some/cat", 3, ".HEIC", HEIC)
    fill(tmp_path / "some/cat", 1, ".jxl", JXL)
    _, line = read(tmp_path / "some", caplog)
    assert f"3 .heic (no decoder: {how_to_install('formats')})" in line
    assert "1 .jxl (no decoder" in line
    fill(tmp_path / "all/cat", 3, ".HEIC", HEIC)
    with pytest.raises(DataError, match=r"holds no images \(3 \.heic \(no decoder: " + command):
        find_splits(tmp_path / "all")
    fill(tmp_path / "named/cat", 1, ".png", HEIC)
    with pytest.raises(DataError, match=r"it is HEIF, .* no decoder: " + command):
        read_images(tmp_path / "named", ImagesConfig())


@pytest.mark.usefixtures("without_plugins")
def test_jpegs_with_the_suffix_of_a_phone_are_read(tmp_path):
    fill(tmp_path / "cat", 2, ".HEIC")  # in truth PNGs
    assert read_images(tmp_path, ImagesConfig()).num_images == 2


def test_heic_and_jpeg_xl_by_the_plugins(tmp_path):
    pytest.importorskip("pillow_heif")
    pytest.importorskip("pillow_jxl")
    formats_module.readable_formats()
    image = Image.new("RGB", (64, 64), (200, 30, 40))
    for suffix, kind in ((".heic", "HEIF"), (".jxl", "JXL")):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        fill(tmp_path / "a", 1, suffix, buffer.getvalue())
    pixels = read_images(tmp_path, ImagesConfig()).images
    assert np.abs(pixels[:, :, 9, 9].astype(int) - (200, 30, 40)).max() <= 3


def test_images_in_subfolders_of_a_class_belong_to_it(tmp_path, caplog):
    fill(tmp_path / "cat")
    fill(tmp_path / "cat/more/still")
    fill(tmp_path / "dog", 1)
    images, line = read(tmp_path, caplog)
    assert images.labels.tolist() == [0, 0, 0, 0, 1] and images.class_names == ("cat", "dog")
    assert "2 in subfolders of their class" in line


@pytest.mark.parametrize("name", ["train-00000-of-00002", "train-00002-of-00003"])
def test_a_missing_shard_is_an_error(tmp_path, name):
    shard(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"holds 1 of the . Parquet files.*-of-.*is missing"):
        find_splits(tmp_path)
    assert find_splits(tmp_path / f"{name}.parquet")[0].files


def test_val_is_the_test_split_where_there_is_no_other(tmp_path, caplog):
    for split, count in (("Train", 4), ("VAL", 2)):
        fill(tmp_path / split / "cat", count)
    train, test = find_splits(tmp_path)
    assert test is not None and (len(train.files), len(test.files)) == (4, 2)
    assert test.remarks == ("the validation split is the test split",)
    fill(tmp_path / "Test" / "cat", 3)
    train, test = find_splits(tmp_path)
    assert test is not None and len(test.files) == 3
    assert train.left_out == {"of the validation split (there is a test split)": 2}


def test_flat_splits_are_splits_and_not_classes(tmp_path):
    for name, count in (("train", 5), ("test", 2), ("sample", 3)):
        fill(tmp_path / name, count)
    train, test = find_splits(tmp_path)
    assert test is not None and (len(train.files), len(test.files)) == (5, 2)
    assert train.kind == "flat_folder"
    assert train.left_out == {"in sample/ (neither train nor test)": 3}


@pytest.mark.parametrize("wrapper", ["photos", "data/v1"])
def test_wrapper_folders_are_opened(tmp_path, wrapper):
    for name in ("cat", "dog"):
        fill(tmp_path / "a" / wrapper / name)
        fill(tmp_path / "b" / wrapper / "Training" / name, 3)
        fill(tmp_path / "b" / wrapper / "Testing" / name, 1)
    (tmp_path / "a/README.md").write_text("x")
    assert read_images(tmp_path / "a", ImagesConfig()).class_names == ("cat", "dog")
    assert find_splits(tmp_path / "a")[0].left_out == {".md (not a format that is read)": 1}
    assert [len(source.files) for source in find_splits(tmp_path / "b") if source] == [6, 2]


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00001", "data/test-00000-of-00001"),
        ("default/train/0000", "default/test/0000"),
        ("Train/part", "Test/part"),
        ("my-train", "my-test"),
    ],
)
def test_hub_layouts(tmp_path, names):
    for name in names:
        shard(tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text("x")
    train, test = find_splits(tmp_path)
    assert train.kind == "parquet" and test is not None
    assert [f.relative_to(tmp_path).as_posix() for f in (*train.files, *test.files)] == [
        f"{name}.parquet" for name in names
    ]


def test_layouts_that_cannot_be_meant_say_what_lies_there(tmp_path):
    for config in ("small", "large"):
        shard(tmp_path / f"configs/{config}/train.parquet")
    for split in ("train", "val"):
        fill(tmp_path / "inside/cat" / split)
        fill(tmp_path / "inside/dog" / split)
        fill(tmp_path / "twice" / split / "cat")
    fill(tmp_path / "twice/training/cat")
    fill(tmp_path / "only/test/cat")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    for path, message in {
        "configs": r"Parquet files in large, small, beside other data; name one",
        "inside": r"splits inside its class folders \(cat/train, cat/val\).*train/cat, val/cat",
        "twice": r"two train splits, train and training",
        "only": r"a test split but no training split",
        "photos.zip": r"is an archive; unpack it",
        "only/test/cat/0.png": r"is one image; name the folder",
    }.items():
        with pytest.raises(DataError, match=message):
            find_splits(tmp_path / path)


def with_metadata(folder: Path, suffix: str, rows: list[dict[str, object]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if suffix == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (folder / f"metadata.{suffix}").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_imagefolder_metadata_gives_the_labels(tmp_path, caplog, suffix):
    for name, value in (("b", 20), ("a", 10), ("sub/c", 30)):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(np.full((1, 8, 8), value, np.uint8)))
    rows = [
        {"file_name": "sub/c.png", "animal": "dog"},
        {"file_name": "a.png", "animal": "cat"},
    ]
    with_metadata(tmp_path, suffix, rows)
    images, line = read(tmp_path, caplog, label_column="animal")
    assert images.images[:, 0, 0, 0].tolist() == [30, 10]
    assert images.labels.tolist() == [1, 0] and images.class_names == ("cat", "dog")
    assert "1 not listed in the metadata" in line
    assert read(tmp_path, caplog, label_column=None)[0].labels is None
    with pytest.raises(DataError, match=r"no column 'label'; beside file_name it has animal: set"):
        read(tmp_path, caplog)
    with_metadata(tmp_path, suffix, [*rows, {"file_name": "z.png", "animal": "cat"}])
    with pytest.raises(DataError, match=r"row 2 of .* lists z\.png, which is no image"):
        read(tmp_path, caplog, label_column="animal")


def test_metadata_above_the_splits_or_inside(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        fill(tmp_path / "above" / split, count)
        fill(tmp_path / "inside" / split, count)
        rows = [{"file_name": f"{n}.png", "label": n} for n in range(count)]
        with_metadata(tmp_path / "inside" / split, "csv", rows)
    rows = [{"file_name": f"train/{n}.png", "label": n} for n in range(3)]
    with_metadata(tmp_path / "above", "csv", [*rows, {"file_name": "test/0.png", "label": 2}])
    for place, last in (("above", ["2"]), ("inside", ["0"])):
        train, test = find_splits(tmp_path / place)
        assert test is not None
        assert read_images(train, ImagesConfig()).labels.tolist() == [0, 1, 2]
        assert list(read_images(test, ImagesConfig()).class_names) == last


def declare(path: Path, names: list) -> None:
    table = pa.table({"img": pa.array([PNG, PNG]), "label": [0, 1]})
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    text = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": text}), path)


def test_class_names_that_are_no_names(tmp_path):
    path = tmp_path / "a.parquet"
    for names, message in (
        (["cat", None], r"declares None as the name of class 1"),
        (["cat", "cat"], r"'cat' twice \(classes 0 and 1\)"),
        (["caf\u00e9", "cafe\u0301"], r"twice"),  # the same text, composed and not
    ):
        declare(path, names)
        with pytest.raises(DataError, match=message) as caught:
            read_images(path, ImagesConfig())
        assert "\n" not in str(caught.value)
        assert read_images(path, ImagesConfig(label_column=None)).num_images == 2
    declare(path, ["\ud800", "dog"])
    assert read_images(path, ImagesConfig()).class_names == ("\\ud800", "dog")


def test_parquet_of_paths_and_of_other_columns(tmp_path):
    shard(tmp_path / "a.parquet", image=None)
    with pytest.raises(DataError, match=r"row 0 of .* holds the path x\.png .*train_images"):
        read_images(tmp_path / "a.parquet", ImagesConfig(label_column=None))
    pq.write_table(
        pa.table({"image": pa.array([PNG]), "fine_label": [0], "id": [1]}), tmp_path / "b.parquet"
    )
    with pytest.raises(DataError, match=r"set images\.image_column to image$"):
        read_images(tmp_path / "b.parquet", ImagesConfig())
    with pytest.raises(DataError, match=r"set images\.label_column to fine_label, or null"):
        read_images(tmp_path / "b.parquet", ImagesConfig(image_column="image"))


def test_shards_with_labels_of_two_kinds(tmp_path):
    shard(tmp_path / "train-00000-of-00002.parquet", [0, 1])
    shard(tmp_path / "train-00001-of-00002.parquet", ["cat", "dog"])
    with pytest.raises(DataError, match=r"00001-of.*string labels.*00000-of.*integer labels") as e:
        read_images(find_image_source(tmp_path), ImagesConfig())
    assert "\n" not in str(e.value)
