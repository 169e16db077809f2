"""Round trips, previews, and what is left on disk when a write fails."""

import base64
import inspect
import io
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import AbstractDataset, DataCatalog, DatasetError, Version
from matplotlib.figure import Figure
from PIL import Image

from phoenix_pipeline.errors import CheckpointError, DataError, PhoenixError, StorageError
from phoenix_pipeline.framework.datasets import (
    FolderDataset,
    JsonByArmDataset,
    PictureDataset,
    ReportDataset,
    WholeFileDataset,
    WrittenByNodeDataset,
    file_of,
)
from phoenix_pipeline.framework.image_datasets import (
    ImageSetDataset,
    ImageSplitsDataset,
    SampleFileDataset,
)
from phoenix_pipeline.images import ImageSet, SampleWriter, write_images
from phoenix_pipeline.json_files import write_json

LIMIT = 1 << 16


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file grow over 64 KiB, so that the system itself refuses the write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def cause(caught: pytest.ExceptionInfo[DatasetError]) -> BaseException | None:
    return caught.value.__cause__


@pytest.mark.parametrize("labels", [np.array([0, 1, 1]), None])
def test_an_image_set_comes_back_unchanged(tmp_path: Path, labels: np.ndarray | None) -> None:
    names = ("cat", "dog") if labels is not None else ()
    images = ImageSet(noise((3, 3, 8, 8)), labels, names)
    dataset = ImageSetDataset(filepath=str(tmp_path / "new" / "images.safetensors"))
    assert not dataset.exists()
    dataset.save(images)
    assert dataset.exists()
    loaded = dataset.load()
    assert loaded.fingerprint() == images.fingerprint()
    assert loaded.class_names == names


def test_a_truncated_image_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.safetensors"
    dataset = ImageSetDataset(filepath=str(path))
    dataset.save(ImageSet(noise((3, 1, 8, 8))))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DatasetError) as caught:
        dataset.load()
    assert isinstance(cause(caught), CheckpointError)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_comes_back_and_previews_its_first_rows(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame({"arm": ["a", "b"] * 10, "score": np.arange(20.0)})
    dataset = file_of(tmp_path / f"table{suffix}")
    dataset.save(table)
    pd.testing.assert_frame_equal(dataset.load(), table)
    preview: Any = dataset.preview(3)
    assert preview["columns"] == ["arm", "score"]
    assert preview["data"] == [["a", 0.0], ["b", 1.0], ["a", 2.0]]


def test_json_text_and_pictures(tmp_path: Path) -> None:
    scores = WholeFileDataset(filepath=str(tmp_path / "scores.json"), dataset="json.JSONDataset")
    scores.save({"fid": 0.5, "counts": [1, 2]})
    assert scores.load() == {"fid": 0.5, "counts": [1, 2]}
    assert json.loads(str(scores.preview())) == scores.load()
    text = file_of(tmp_path / "card.md")
    text.save("<p>é</p>")
    assert text.load() == "<p>é</p>"
    text.save("in /caf\udce9/data")
    assert text.load() == r"in /caf\xe9/data"
    picture = a_picture(str(tmp_path / "grid.png"))
    pixels = noise((9, 7, 3))
    picture.save(Image.fromarray(pixels))
    shown = Image.open(io.BytesIO(base64.b64decode(picture.preview())))
    assert np.array_equal(np.asarray(shown), pixels)
    figure = WholeFileDataset(
        filepath=str(tmp_path / "figure.png"),
        dataset="matplotlib.MatplotlibDataset",
        if_missing="path",
    )
    figure.save(Figure(figsize=(1, 1)))
    assert base64.b64decode(str(figure.preview())).startswith(b"\x89PNG")
    assert figure.load() == tmp_path / "figure.png"


def test_the_json_of_all_arms_is_what_their_own_datasets_wrote(tmp_path: Path) -> None:
    every = JsonByArmDataset(filepath=str(tmp_path / "*" / "privacy.json"))
    assert every.load() == {} and not every.exists()
    for arm, auc in (("fedavg", 0.5), ("dcgan", 0.75)):
        write_json(tmp_path / arm / "privacy.json", {"auc": auc})
    (tmp_path / "figures").mkdir()
    every.save({"nobody": {}})
    assert every.load() == {"dcgan": {"auc": 0.75}, "fedavg": {"auc": 0.5}}


def test_a_missing_input_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        file_of(tmp_path / "partition.parquet").load()
    assert isinstance(cause(caught), DataError)
    assert "an earlier stage writes it" in str(cause(caught))


def test_a_folder_is_made_on_load_and_exists_once_it_is_filled(tmp_path: Path) -> None:
    dataset = FolderDataset(filepath=str(tmp_path / "a" / "model"))
    folder = dataset.load()
    assert folder.is_dir()
    assert not dataset.exists()
    (folder / "x").write_text("1")
    dataset.save(folder)
    assert dataset.exists()
    with pytest.raises(DatasetError, match="the catalog expects"):
        dataset.save(tmp_path)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    dataset = FolderDataset(filepath=str(tmp_path / "model"))
    dataset.save(lambda folder: (folder / "old").write_text("1"))  # type: ignore[arg-type]

    def interrupted(folder: Path) -> None:
        (folder / "new").write_text("2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.save(interrupted)
    assert [path.name for path in dataset.load().iterdir()] == ["old"]
    dataset.save(lambda folder: (folder / "new").write_text("2"))  # type: ignore[arg-type]
    assert [path.name for path in dataset.load().iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_node_writes_its_own_files_and_what_it_leaves_alone_stays(tmp_path: Path) -> None:
    dataset = WrittenByNodeDataset(filepath=str(tmp_path / "references"))
    with pytest.raises(DatasetError, match="does not exist"):
        dataset.load()
    for name in ("a", "b"):
        dataset.save(lambda folder, name=name: write_json(folder / name, name))
    assert {path.name for path in dataset.load().iterdir()} == {"a", "b"}


def a_file(filepath: str) -> AbstractDataset:
    return file_of(Path(filepath))


def a_json(filepath: str) -> AbstractDataset:
    return WholeFileDataset(filepath=filepath, dataset="json.JSONDataset")


def a_picture(filepath: str) -> PictureDataset:
    return PictureDataset(filepath=filepath, dataset="pillow.ImageDataset", if_missing="path")


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize(
    ("dataset", "name", "value"),
    [
        (a_file, "t.parquet", pd.DataFrame({"x": noise((2 * LIMIT,))})),
        (a_file, "t.csv", pd.DataFrame({"x": noise((LIMIT,))})),
        (a_json, "j.json", list(range(LIMIT))),
        (a_file, "t.md", "x" * 2 * LIMIT),
        (a_picture, "p.png", Image.fromarray(noise((256, 256, 3)))),
        (ImageSetDataset, "i.safetensors", ImageSet(noise((64, 3, 32, 32)))),
        (FolderDataset, "f", lambda folder: (folder / "x").write_bytes(b"x" * 2 * LIMIT)),
        (WrittenByNodeDataset, "w.json", lambda path: write_json(path, list(range(LIMIT)))),
    ],
)
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, dataset: Callable[..., AbstractDataset], name: str, value: object
) -> None:
    target = tmp_path / "out" / name
    with pytest.raises(DatasetError) as caught:
        dataset(filepath=str(target)).save(value)
    assert isinstance(cause(caught), StorageError)
    assert "could not be written" in str(cause(caught))
    assert list((tmp_path / "out").iterdir()) == []


def test_image_splits_from_two_paths_or_one_folder(tmp_path: Path) -> None:
    images = ImageSet(noise((4, 1, 8, 8)), np.array([0, 1, 0, 1]), ("0", "1"))
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write_images(images, tmp_path / split / "part.parquet")
    folder = ImageSplitsDataset(train={"path": str(tmp_path)}, test={"path": None}).load()
    assert folder.test is not None
    assert folder.train.path == tmp_path / "train"
    alone = ImageSplitsDataset(train={"path": str(tmp_path / "train")}).load()
    assert alone.test is None
    other = ImageSplitsDataset(
        train={"path": str(tmp_path / "train")}, test={"path": str(tmp_path / "nowhere")}
    )
    assert not other.exists()
    with pytest.raises(DatasetError, match="no images at") as caught:
        other.load()
    assert isinstance(cause(caught), PhoenixError)


def test_a_stage_that_has_not_run_gives_an_empty_dictionary(tmp_path: Path) -> None:
    dataset = WholeFileDataset(
        filepath=str(tmp_path / "privacy.json"), dataset="json.JSONDataset", if_missing="empty"
    )
    assert (dataset.load(), dataset.exists()) == ({}, False)
    dataset.save({"scores": {"auc": 0.5}})
    assert (dataset.load(), dataset.exists()) == ({"scores": {"auc": 0.5}}, True)


def test_versions_save_args_and_credentials_are_kedros_own(tmp_path: Path) -> None:
    entry = {
        "type": "phoenix_pipeline.framework.datasets.WholeFileDataset",
        "dataset": "pandas.CSVDataset",
        "filepath": str(tmp_path / "table.csv"),
        "versioned": True,
        "save_args": {"sep": ";"},
        "load_args": {"sep": ";"},
        "credentials": "disk",
    }
    credentials = {"disk": {"user": "me"}}
    for score in (1, 2):
        catalog = DataCatalog.from_config(
            {"table": entry}, credentials, save_version=f"2026-01-0{score}T00.00.00.000Z"
        )
        catalog.save("table", pd.DataFrame({"arm": ["a"], "score": [score]}))
    first, second = sorted((tmp_path / "table.csv").glob("*/table.csv"))
    assert first.read_text().splitlines() == ["arm;score", "a;1"]
    assert list(second.parent.iterdir()) == [second]
    newest = DataCatalog.from_config({"table": entry}, credentials)
    assert newest.load("table")["score"][0] == 2
    inner: Any = newest["table"]._at(first)  # type: ignore[index]
    assert inner._fs.storage_options["user"] == "me"


def test_previews_have_the_types_that_kedro_viz_asks_for(tmp_path: Path) -> None:
    table = {"filepath": str(tmp_path / "t.csv"), "dataset": "pandas.CSVDataset"}
    previews = {
        "TablePreview": WholeFileDataset(**table),
        "JSONPreview": a_json(str(tmp_path / "j.json")),
        "ImagePreview": a_picture(str(tmp_path / "p.png")),
    }
    for name, dataset in previews.items():
        preview: Any = dataset.preview  # type: ignore[attr-defined]
        found = inspect.signature(preview).return_annotation
        assert getattr(found, "__name__", found) == name
    assert not hasattr(file_of(tmp_path / "card.md"), "preview")
    assert not hasattr(WholeFileDataset(**table, version=Version(None, None)), "preview")


@pytest.mark.parametrize(("name", "content"), [("t.parquet", b"PAR1"), ("t.csv", b"")])
def test_a_broken_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        file_of(tmp_path / name).load()
    assert isinstance(cause(caught), DataError)
    said = str(cause(caught))
    assert said.startswith(f"{tmp_path / name} cannot be read: ") and "\n" not in said


def test_samples_are_shown_as_pictures(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64), dtype=np.uint8)
    with SampleWriter(tmp_path / "samples.parquet", {}) as writer:
        writer.write(pixels, -1, range(4))
    preview = SampleFileDataset(filepath=str(tmp_path / "samples.parquet")).preview()
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(preview))))
    # Two by two, with white lines two pixels wide.
    assert shown.shape == (134, 134)
    assert np.array_equal(shown[2:66, 68:132], pixels[1, 0])


def test_the_report_is_shown_by_its_first_sentences(tmp_path: Path) -> None:
    report = ReportDataset(filepath=str(tmp_path / "report.html"), dataset="text.TextDataset")
    report.save('<h1>x</h1><p class="result">phoenix &amp; fedavg.</p><p>More.</p>')
    shown = json.loads(report.preview())
    assert shown == {"what came out": "phoenix & fedavg.", "page": str(tmp_path / "report.html")}
