"""Samples stream to a file that is complete or absent; the embedded digits are reproducible."""

import resource
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError, StorageError
from phoenix_pipeline.images import SampleWriter, read_images, read_samples

ROOT = Path(__file__).parents[2]
BATCHES = np.random.default_rng(0).integers(0, 256, (3, 4, 3, 16, 16), dtype=np.uint8)


def test_samples_round_trip_with_origin(tmp_path):
    path = tmp_path / "new" / "samples.parquet"
    with SampleWriter(path) as writer:
        for client, batch in enumerate(BATCHES, start=-1):
            writer.write(batch, client, np.arange(4) + 2**62 + client)
        assert not path.exists()
    samples = read_samples(path)
    assert np.array_equal(samples.images.images, BATCHES.reshape(12, 3, 16, 16))
    assert samples.client_id.tolist() == [-1] * 4 + [0] * 4 + [1] * 4
    assert samples.labels is None
    assert samples.seed[4:6].tolist() == [2**62, 2**62 + 1]
    table = pq.read_table(path)
    assert table["label"].to_pylist() == [-1] * 12
    assert table["img"][5].as_py()["path"] == "000005.png"
    assert [child.name for child in path.parent.iterdir()] == ["samples.parquet"]


def test_labels_are_kept_with_the_names_of_their_classes(tmp_path):
    from datasets import Dataset

    path, names = tmp_path / "a.parquet", ("cat", "dog")
    with SampleWriter(path, class_names=names) as writer:
        writer.write(BATCHES[0], -1, range(4), [1, 0, 0, 1])
    labels = read_samples(path).labels
    assert labels is not None
    assert labels.tolist() == [1, 0, 0, 1]
    read = read_images(path, ImagesConfig())
    assert (read.class_names, read.labels.tolist()) == (names, [1, 0, 0, 1])
    loaded = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert loaded.features["label"].names == ["cat", "dog"]


def test_samples_have_the_raw_schema(tmp_path):
    from datasets import Dataset

    with SampleWriter(tmp_path / "a.parquet") as writer:
        writer.write(BATCHES[0], -1, range(4))
    loaded = Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(np.asarray(loaded[1]["img"]).transpose(2, 0, 1), BATCHES[0, 1])
    read = read_images(tmp_path / "a.parquet", ImagesConfig(label_column=None))
    assert np.array_equal(read.images, BATCHES[0])


def test_an_exception_leaves_nothing_new_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "samples.parquet"
    with SampleWriter(path) as writer:
        writer.write(BATCHES[0], -1, range(4))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), SampleWriter(path) as writer:
        writer.write(BATCHES[1], -1, range(4))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["samples.parquet"]


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with (
            pytest.raises(StorageError, match=r"samples\.parquet could not be written") as caught,
            SampleWriter(tmp_path / "samples.parquet") as writer,
        ):
            for batch in BATCHES:
                writer.write(batch, -1, range(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"file/samples\.parquet"),
        SampleWriter(tmp_path / "file" / "samples.parquet"),
    ):
        pass


def test_seeds_must_match_images_and_samples_must_exist(tmp_path):
    with (
        pytest.raises(DataError, match="4 samples came with 3 seeds"),
        SampleWriter(tmp_path / "a.parquet") as writer,
    ):
        writer.write(BATCHES[0], -1, range(3))
    with pytest.raises(DataError, match="there are no samples at"):
        read_samples(tmp_path / "a.parquet")


def test_embedded_digits_are_scikit_learns_and_reproducible(tmp_path):
    runpy.run_path(str(ROOT / "scripts" / "make_digits.py"))["main"](tmp_path)
    train, test = (
        read_images(tmp_path / f"{s}.parquet", ImagesConfig()) for s in ("train", "test")
    )
    assert (train.num_images, test.num_images) == (1437, 360)
    assert train.class_names == tuple("0123456789") == test.class_names
    assert np.bincount(test.labels).min() >= 35
    both = np.concatenate([train.images, test.images])[:, 0].reshape(1797, -1)
    originals = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, originals))
    for split, images in (("train", train), ("test", test)):
        stored = read_images(ROOT / f"data/01_raw/digits/{split}.parquet", ImagesConfig())
        assert stored.fingerprint() == images.fingerprint()


def test_importing_images_does_not_import_torch_or_pandas():
    code = "import sys, phoenix_pipeline.images; print({'torch', 'pandas'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_samples_that_are_broken_are_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    columns = {"client_id": [-1], "seed": [0], "label": [-1]}
    pq.write_table(pa.table(columns), tmp_path / "without.parquet")
    image = {"bytes": b"no image", "path": "0.png"}
    pq.write_table(pa.table({"img": [image], **columns}), tmp_path / "image.parquet")
    with pytest.raises(DataError, match=r"text\.parquet cannot be read as a Parquet file: .+"):
        read_samples(tmp_path / "text.parquet")
    with pytest.raises(DataError, match="has no column 'img'; it has client_id, seed, label"):
        read_samples(tmp_path / "without.parquet")
    with pytest.raises(DataError, match=r"row 0 of .*image\.parquet cannot be .*\(8 bytes\)"):
        read_samples(tmp_path / "image.parquet")
