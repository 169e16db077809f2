"""Sources of every allowed kind, and one clear error for each broken one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import (
    ImageSet,
    align_classes,
    encode_png,
    find_image_source,
    find_splits,
    read_images,
    write_images,
)

UNLABELLED = ImagesConfig(label_column=None)


def make_images(n: int, channels: int = 1, side: int = 8, width: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (n, channels, side, width or side), dtype=np.uint8)


def write_table(path: Path, images: list, **columns: list) -> Path:
    pngs = [image if isinstance(image, bytes) or image is None else encode_png(image)
            for image in images]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": pa.array(pngs, pa.binary()), **columns}), path)
    return path


def write_pngs(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number}.png").write_bytes(encode_png(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_hugging_face_parquet_round_trip(tmp_path, channels):
    # More rows than a read batch; a class order that is not the alphabet's.
    labels = np.arange(600) % 3
    given = ImageSet(make_images(600, channels), labels, ("cat", "ant", "bee"))
    write_images(given, tmp_path / "train.parquet")
    read = read_images(tmp_path / "train.parquet", ImagesConfig())
    assert np.array_equal(read.images, given.images)
    assert np.array_equal(read.labels, labels) and read.labels.dtype == np.int64
    assert read.class_names == ("cat", "ant", "bee")
    assert read.fingerprint() == given.fingerprint() != given.subset(slice(1, None)).fingerprint()


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        ([7, 3, 7], [1, 0, 1], ("3", "7")),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        (pa.array(["b", "a", "a"]).dictionary_encode(), [1, 0, 0], ("a", "b")),
    ],
)
def test_plain_bytes_and_label_values_become_classes(tmp_path, values, labels, names):
    images = make_images(3)
    read = read_images(write_table(tmp_path / "a.parquet", list(images), label=values),
                       ImagesConfig())  # fmt: skip
    assert read.labels.tolist() == labels and read.class_names == names
    assert np.array_equal(read.images, images)


def test_shards_are_read_in_order_of_their_names(tmp_path):
    images = make_images(5)
    write_table(tmp_path / "train-00001.parquet", list(images[2:]), label=["b", "a", "b"])
    write_table(tmp_path / "train-00000.parquet", list(images[:2]), label=["a", "a"])
    read = read_images(tmp_path, ImagesConfig())
    assert np.array_equal(read.images, images) and read.labels.tolist() == [0, 0, 1, 0, 1]


def test_class_folders_numeric_names_in_numeric_order(tmp_path):
    for name, value in (("10", 10), ("9", 9)):
        write_pngs(tmp_path / name, np.full((2, 1, 8, 8), value, np.uint8))
    (tmp_path / ".hidden").mkdir()
    read = read_images(tmp_path, ImagesConfig())
    assert read.class_names == ("9", "10") and read.labels.tolist() == [0, 0, 1, 1]
    assert read.images[:, 0, 0, 0].tolist() == [9, 9, 10, 10]
    assert read_images(tmp_path, UNLABELLED).labels is None


def test_flat_folder_is_unlabelled(tmp_path):
    write_pngs(tmp_path / "loose", make_images(3))
    read = read_images(tmp_path / "loose", ImagesConfig())
    assert read.num_images == 3 and read.labels is None and read.num_classes == 0


def test_size_and_channels_change_on_request(tmp_path):
    path = write_table(tmp_path / "a.parquet", [*make_images(2, 3, 300), *make_images(1, 1, 6, 9)])
    read = read_images(path, ImagesConfig(label_column=None, image_size=16, channels=1))
    assert read.images.shape == (3, 1, 16, 16) and (read.image_size, read.channels) == (16, 1)


def test_splits_from_subfolders_and_from_shard_names(tmp_path):
    write_pngs(tmp_path / "folders/train/a", make_images(3))
    write_pngs(tmp_path / "folders/test/a", make_images(2))
    for name, n in (("train-0", 2), ("train-1", 2), ("test-0", 1), ("validation-0", 4)):
        write_table(tmp_path / f"shards/{name}.parquet", list(make_images(n)))
    for path, sizes in (("folders", (3, 2)), ("shards", (4, 1))):
        with pytest.raises(DataError, match="several splits"):
            read_images(tmp_path / path, UNLABELLED)
        train, test = find_splits(tmp_path / path)
        assert tuple(read_images(s, UNLABELLED).num_images for s in (train, test)) == sizes
    assert find_splits(tmp_path / "folders/train")[1] is None
    assert train.left_out == {"of the validation split (there is a test split)": 1}
    write_table(tmp_path / "shards/more.parquet", list(make_images(1)))
    with pytest.raises(DataError, match=r"more\.parquet beside files of named splits"):
        find_splits(tmp_path / "shards")


def test_vehicles_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        write_pngs(tmp_path / name, make_images(1))
    train, test = find_splits(tmp_path)
    assert test is None and train.remarks == ("train is taken for a class, not for a split",)
    assert read_images(tmp_path, ImagesConfig()).class_names == ("bus", "train")


def test_test_split_labels_are_matched_by_name():
    test = ImageSet(make_images(3), np.array([0, 1, 1]), ("cat", "dog"))
    aligned = align_classes(test, ("ant", "cat", "cow", "dog"))
    assert aligned.labels.tolist() == [1, 3, 3] and aligned.num_classes == 4
    with pytest.raises(DataError, match="'dog' is not among the training classes"):
        align_classes(test, ("ant", "cat"))


def test_declared_classes_without_image_do_not_count(tmp_path, caplog):
    given = ImageSet(make_images(2), np.array([0, 2]), ("a", "b", "c"))
    write_images(given, tmp_path / "a.parquet")
    with caplog.at_level("INFO"):
        read = read_images(tmp_path / "a.parquet", ImagesConfig())
    assert read.labels.tolist() == [0, 1] and read.class_names == ("a", "c")
    assert "1 declared classes have no image and do not count: b" in caplog.text
    read = read_images(tmp_path / "a.parquet", ImagesConfig(), keep_empty_classes=True)
    assert read.labels.tolist() == [0, 2] and read.class_names == ("a", "b", "c")


GOOD = [encode_png(image) for image in make_images(300)]
BROKEN_TABLES = {
    "no rows": ([], {}, UNLABELLED, "no rows"),
    "missing label": (GOOD[:1], {"y": [0]}, ImagesConfig(),
                      r"no column 'label'; it has img, y: set images\.label_column .* null"),
    "missing image": (GOOD[:1], {}, ImagesConfig(image_column="image", label_column=None),
                      r"no column 'image'; it has img: set images\.image_column"),
    "image type": (GOOD[:1], {"n": [1]}, ImagesConfig(image_column="n", label_column=None),
                   "holds int64; allowed are"),
    "undecodable": ([*GOOD[:40], b"x"], {}, UNLABELLED, "row 40 of .* cannot be decoded"),
    "no bytes": ([GOOD[0], None], {}, UNLABELLED, "row 1 of .* has no image bytes"),
    "sizes": ([GOOD[0], *make_images(1, 1, 9)], {}, UNLABELLED,
              r"row 1 of .* is 9x9 px, unlike row 0 .* 8x8 px; set images\.image_size"),
    "too small": (make_images(1, 1, 7), {}, UNLABELLED, r"row 0 .* 7x7 px.*8 to 256"),
    "too large": (make_images(1, 1, 257), {}, UNLABELLED, r"257x257 px.*images\.image_size"),
    "not square": (make_images(1, 1, 8, 10), {}, UNLABELLED, r"10x8 px; images must be square"),
    "negative": (GOOD[:3], {"label": [0, 1, -1]}, ImagesConfig(), "row 2 .* has label -1"),
    "paths": ([], {"img": pa.array(["a.png"])}, UNLABELLED, "'img' of .* holds text; .*paths"),
    "null label": (GOOD[:3], {"label": [0, None, 1]}, ImagesConfig(), "row 1 .* has no label"),
    "float label": (GOOD[:1], {"label": [0.5]}, ImagesConfig(), "of type double; integers or"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_TABLES)
def test_broken_tables_are_refused_in_one_line(tmp_path, name):
    images, columns, config, message = BROKEN_TABLES[name]
    path = write_table(tmp_path / "a.parquet", list(images), **columns)
    with pytest.raises(DataError, match=message) as caught:
        read_images(path, config)
    assert "\n" not in str(caught.value)


def test_label_beyond_the_declared_names(tmp_path):
    write_images(ImageSet(make_images(2), np.array([0, 1]), ("a", "b")), tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([0, 5])), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"row 1 .* has label 5; allowed are 0 to 1"):
        read_images(tmp_path / "b.parquet", ImagesConfig())


def test_shards_must_declare_the_same_names(tmp_path):
    for shard, names in (("a", ("x", "y")), ("b", ("y", "x"))):
        images = ImageSet(make_images(2), np.array([0, 1]), names)
        write_images(images, tmp_path / f"{shard}.parquet")
    with pytest.raises(DataError, match="other class names"):
        read_images(tmp_path, ImagesConfig())


def test_damaged_pages_are_refused(tmp_path):
    path = write_table(tmp_path / "a.parquet", GOOD)
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read as a Parquet file"):
        read_images(path, UNLABELLED)


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_truncated_tables_are_refused(tmp_path, kept):
    path = write_table(tmp_path / "a.parquet", GOOD)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as a Parquet file") as caught:
        read_images(path, UNLABELLED)
    assert "\n" not in str(caught.value)


def test_an_image_cut_short_or_of_another_size_is_named_by_its_file(tmp_path):
    write_pngs(tmp_path / "cut/a", make_images(2))
    (tmp_path / "cut/a/zz.png").write_bytes(GOOD[0][: len(GOOD[0]) // 2])
    write_pngs(tmp_path / "sizes/a", make_images(2))
    (tmp_path / "sizes/a/zz.png").write_bytes(encode_png(make_images(1, 1, 9)[0]))
    for folder, message in (
        ("cut", r"zz\.png cannot be decoded"),
        ("sizes", r"zz\.png is 9x9 px, unlike .* 8x8 px; set images\.image_size"),
    ):
        with pytest.raises(DataError, match=message):
            read_images(find_image_source(tmp_path / folder), ImagesConfig())


def test_images_have_one_fingerprint_and_others_another():
    images = ImageSet(make_images(3))
    same = ImageSet(make_images(3))
    assert images.fingerprint() == images.fingerprint() == same.fingerprint()
    assert images.subset([0, 1]).fingerprint() != images.fingerprint()
    assert ImageSet(make_images(3), np.zeros(3, int), ("a",)).fingerprint() != same.fingerprint()


def test_broken_sources_are_refused(tmp_path):
    (tmp_path / "notes.parquet").write_text("not a table")
    (tmp_path / "empty").mkdir()
    write_pngs(tmp_path / "classes/full", make_images(1))
    (tmp_path / "classes/void").mkdir()
    write_pngs(tmp_path / "mixed/a", make_images(1))
    (tmp_path / "mixed/b.png").write_bytes(GOOD[0])
    write_pngs(tmp_path / "flat", make_images(1))
    (tmp_path / "flat/zz.png").write_bytes(b"broken")
    for path, message in {
        "absent": "there are no images at .*absent.* train_images or test_images",
        "notes.parquet": "cannot be read as a Parquet file",
        "empty": "holds no images",
        "classes": "class folder .*void has no image",
        "mixed": "holds loose images and class folders",
        "flat": r"zz\.png cannot be decoded",
    }.items():
        with pytest.raises(DataError, match=message):
            read_images(find_image_source(tmp_path / path), UNLABELLED)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 2, 8, 8), np.uint8), None, "2 channels; 1 .* or 3"),
        (np.zeros((2, 1, 8, 8), np.float32), None, "float32 of shape"),
        (np.zeros((2, 1, 8, 9), np.uint8), None, "9x8 px; they must be square"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.array([0]), r"2 images have labels of shape \(1,\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.array([0, 2]), "range from 0 to 2; with 2 class"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.array([-1, 0]), "range from -1 to 0"),
    ],
)
def test_image_set_refuses_parts_that_do_not_fit(images, labels, message):
    with pytest.raises(DataError, match=message):
        ImageSet(images, labels, ("a", "b"))
