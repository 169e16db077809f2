"""Write images as Parquet in the raw schema (PNG bytes) or as PNGs, and read samples back."""

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.formats import encode_png
from phoenix_pipeline.images.image_set import ImageSet
from phoenix_pipeline.images.parquet import read_parquet

_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_IMAGE_FEATURE = {"_type": "Image"}
_ROWS_PER_GROUP = 1000
# Key of the Parquet file's metadata that holds how the samples in it were drawn.
_DRAWN = "phoenix"
UNLABELLED = -1
GLOBAL_MODEL = -1
# What ``load_dataset("imagefolder")`` looks for, and this project's own reader of labelled images.
LABELLED_TABLE, FILE_NAME = "metadata.csv", "file_name"
TABLE_FILE = "images.csv"


def write_images(images: ImageSet, path: Path) -> None:
    """Write ``images`` as Hugging Face style Parquet, the same bytes for the same images."""
    columns: dict[str, pa.Array] = {"img": _encode(images.images, 0)}
    features: dict[str, Any] = {"img": _IMAGE_FEATURE}
    if images.labels is not None:
        columns["label"] = pa.array(images.labels, pa.int64())
        features["label"] = {"names": list(images.class_names), "_type": "ClassLabel"}
    table = pa.table(columns).replace_schema_metadata(_metadata(features))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=_ROWS_PER_GROUP)


@dataclass(frozen=True, eq=False)
class Samples:
    """Generated images with their origin.

    ``images``: unlabelled ImageSet. ``labels``: int64 [N], the classes that a conditional model was
    asked for; None for any other. ``client_id``: int32 [N], -1 for the global model. ``seed``:
    int64 [N], the seed of each image. ``drawn``: how and from which weights, as they were written.
    """

    images: ImageSet
    client_id: np.ndarray
    seed: np.ndarray
    drawn: Mapping[str, Any] = field(default_factory=dict)
    labels: np.ndarray | None = None


class SampleWriter:
    """Stream generated images to a Parquet file that gets its name only when it is complete.

    Use as a context manager; an exception inside removes what was written so far. Columns: img
    struct{bytes, path}, label int64 (-1 of an unconditional model), client_id int32, seed int64.
    Raises StorageError.
    """

    def __init__(
        self,
        path: Path,
        drawn: Mapping[str, Any] | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        """Remember the final path; nothing is written before the ``with`` block.

        ``drawn``: how the samples are drawn, kept in the file (as JSON); None: nothing is said.
        ``class_names``: of a conditional model, kept in the file as Hugging Face's ClassLabel.
        """
        self._path = path
        self._rows = 0
        self._cleanup = ExitStack()
        values = {"label": "int64", "client_id": "int32", "seed": "int64"}
        features: dict[str, Any] = {
            name: {"dtype": dtype, "_type": "Value"} for name, dtype in values.items()
        }
        if class_names:
            features["label"] = {"names": list(class_names), "_type": "ClassLabel"}
        self._schema = pa.schema(
            [("img", _IMAGE_TYPE), *((name, dtype) for name, dtype in values.items())],
            metadata={
                **_metadata({"img": _IMAGE_FEATURE, **features}),
                **({_DRAWN: json.dumps(drawn)} if drawn else {}),
            },
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._parquet = stack.enter_context(pq.ParquetWriter(temporary, self._schema))
            self._cleanup = stack.pop_all()
        return self

    def write(
        self,
        images: np.ndarray,
        client_id: int,
        seeds: Sequence[int] | np.ndarray,
        labels: Sequence[int] | None = None,
    ) -> None:
        """Append uint8 [n, C, S, S] of one model; ``seeds`` and ``labels``: one int64 per image."""
        if len(seeds) != len(images):
            raise DataError(
                f"{len(images)} samples came with {len(seeds)} seeds; one each is needed"
            )
        columns = [
            _encode(images, self._rows),
            pa.array(np.full(len(images), UNLABELLED) if labels is None else labels, pa.int64()),
            pa.array(np.full(len(images), client_id, np.int32)),
            pa.array(np.asarray(seeds, dtype=np.int64)),
        ]
        self._parquet.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows += len(images)

    def __exit__(self, *error: Any) -> None:
        self._cleanup.__exit__(*error)


def read_samples(path: Path) -> Samples:
    """Read what :class:`SampleWriter` wrote; raises DataError when it is missing or broken."""
    if not path.is_file():
        raise DataError(f"there are no samples at {path}; run the sampling stage first")
    images, _ = read_parquet([path], ImagesConfig(label_column=None, max_broken_fraction=0.0))
    schema = pq.read_schema(path)
    names = schema.names
    missing = [name for name in ("client_id", "seed", "label") if name not in names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; it has {', '.join(names)}")
    table = pq.read_table(path, columns=["client_id", "seed", "label"])
    drawn = json.loads((schema.metadata or {}).get(_DRAWN.encode(), b"{}"))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    labels = columns["label"] if (columns["label"] != UNLABELLED).any() else None
    return Samples(images, columns["client_id"], columns["seed"], drawn, labels)


def pick_evenly(samples: Samples, count: int) -> np.ndarray:
    """Return ``count`` images spread evenly over the file, of client models if any; none picked."""
    personal = np.flatnonzero(samples.client_id != GLOBAL_MODEL)
    rows = personal if len(personal) else np.arange(samples.images.num_images)
    positions = np.linspace(0, len(rows), min(count, len(rows)), endpoint=False).astype(int)
    return samples.images.images[rows[positions]]


def _encode(images: np.ndarray, first: int) -> pa.Array:
    rows = [
        {"bytes": encode_png(image), "path": f"{first + offset:06d}.png"}
        for offset, image in enumerate(images)
    ]
    return pa.array(rows, _IMAGE_TYPE)


def _metadata(features: dict[str, Any]) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": features}})}


class PngFolderWriter:
    """Write ``000000.png``, ... and a table of where each is from into a folder.

    ``images.csv`` has the columns file, client_id and seed. With ``class_names`` it is
    ``metadata.csv`` with file_name, label (the name of the class), client_id and seed, which
    ``datasets.load_dataset("imagefolder", data_dir=...)`` reads as a labelled set.

    Use as a context manager. The folder must exist; whoever made it also removes it after an
    exception. Takes the same ``write`` as :class:`phoenix_pipeline.images.SampleWriter`.
    """

    def __init__(self, folder: Path, class_names: Sequence[str] = ()) -> None:
        self._folder = folder
        self._class_names = class_names
        self._count = 0
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        name = LABELLED_TABLE if self._class_names else TABLE_FILE
        file = (self._folder / name).open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._cleanup.enter_context(file), lineterminator="\n")
        columns = [FILE_NAME, "label"] if self._class_names else ["file"]
        self._table.writerow([*columns, "client_id", "seed"])
        return self

    def write(
        self,
        images: np.ndarray,
        client_id: int,
        seeds: Sequence[int] | np.ndarray,
        labels: Sequence[int] | None = None,
    ) -> None:
        """Add uint8 [n, C, S, S] of one model; ``seeds`` and ``labels``: one per image."""
        for i, (image, seed) in enumerate(zip(images, seeds, strict=True)):
            name = f"{self._count:06d}.png"
            (self._folder / name).write_bytes(encode_png(image))
            label = [] if labels is None else [self._class_names[labels[i]]]
            self._table.writerow([name, *label, client_id, int(seed)])
            self._count += 1

    def __exit__(self, *error: Any) -> None:
        self._cleanup.close()
