"""Read Hugging Face style image Parquet in small batches of rows."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.image_set import ImageSet
from phoenix_pipeline.images.labels import (
    check_kinds,
    class_names,
    number_labels,
    readable_name,
)
from phoenix_pipeline.images.stack import ImageStack

_BATCH_ROWS = 256
_READ_BUFFER_BYTES = 1 << 20
_LISTED_NAMES = 20
_EMBED = "with the library datasets, cast the column to Image() and write it by to_parquet"


def read_parquet(files: Sequence[Path], config: ImagesConfig) -> tuple[ImageSet, ImageStack]:
    """Read one split from its shards, in order; the stack says what was converted or broken.

    Class names come from the ClassLabel feature of the Hugging Face schema metadata when there is
    one, else from the label values in order. Raises DataError naming file and row.
    """
    shards = [_open(file, config) for file in files]
    num_images = sum(shard.metadata.num_rows for shard in shards)
    if num_images == 0:
        raise DataError(f"{readable_name(files[0])} holds no rows; at least one image is needed")
    names = None
    if config.label_column is not None:
        kinds = [shard.schema_arrow.field(config.label_column).type for shard in shards]
        check_kinds(files, kinds, config.label_column)
        names = _declared_names(files, shards, config.label_column)
    stack = ImageStack(num_images, config)
    labels: list[int] | list[str] = []

    def encoded() -> Iterator[tuple[bytes, str]]:
        for file, shard in zip(files, shards, strict=True):
            row = 0
            for batch in iterate_batches(shard, file):
                yield from _image_bytes(batch, config.image_column, row, file)
                if config.label_column is not None:
                    column = batch.column(config.label_column)
                    labels.extend(_check_nulls(column, row, file).to_pylist())
                row += batch.num_rows

    stack.add_all(encoded())
    if config.label_column is None:
        return ImageSet(stack.images()), stack
    numbers, found = number_labels(labels, names, files[0])
    return ImageSet(stack.images(), numbers[stack.kept], found), stack


def count_rows(files: Sequence[Path]) -> int:
    """Return the rows of all files; only their footers are read. Raises as :func:`read_parquet`."""
    total = 0
    for file in files:
        with _refused(file):
            total += pq.read_metadata(file).num_rows
    return total


@contextmanager
def _refused(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{readable_name(file)} cannot be read as a Parquet file: {reason}"
        ) from error


def _open(file: Path, config: ImagesConfig) -> pq.ParquetFile:
    with _refused(file):
        shard = pq.ParquetFile(file, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False)
    schema = shard.schema_arrow
    for key, column in (
        ("image_column", config.image_column), ("label_column", config.label_column)
    ):  # fmt: skip
        if column is not None and column not in schema.names:
            hint = ", or null if the images are unlabelled" if key == "label_column" else ""
            raise DataError(
                f"{readable_name(file)} has no column {column!r}; it has "
                f"{', '.join(map(readable_name, schema.names)) or 'none'}: set images.{key} to "
                f"{_suggested(schema, key)}{hint}"
            )
    kind = schema.field(config.image_column).type
    if not _holds_bytes(kind):
        is_path = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        raise DataError(
            f"column {config.image_column!r} of {readable_name(file)} holds "
            f"{'text' if is_path else kind}; allowed are encoded image bytes (binary) or "
            f"struct{{bytes, path}}: set images.image_column"
            + (f", or, {_EMBED}, if these are paths" if is_path else "")
        )
    return shard


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
        if pa.types.is_null(kind):
            return True  # every row says by itself that it has no bytes
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _suggested(schema: pa.Schema, key: str) -> str:
    if key == "image_column":
        fitting = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    else:
        fitting = [name for name in schema.names if "label" in name.lower()]
    return readable_name(fitting[0]) if len(fitting) == 1 else "one of these"


def iterate_batches(shard: pq.ParquetFile, file: Path) -> Iterator[pa.RecordBatch]:
    """Yield a shard's rows in small batches; raises DataError when its pages are damaged."""
    with _refused(file):
        yield from shard.iter_batches(_BATCH_ROWS, use_threads=False)


def _image_bytes(
    batch: pa.RecordBatch, name: str, first_row: int, file: Path
) -> Iterator[tuple[bytes, str]]:
    """Yield the bytes of each image and what errors call it."""
    column = batch.column(name)
    cells = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    shown = readable_name(file)
    for row, data in enumerate(cells.to_pylist(), first_row):
        if data is None:
            raise DataError(_no_bytes(column[row - first_row].as_py(), row, shown, name))
        yield data, f"row {row} of {shown}"


def _no_bytes(cell: object, row: int, file: str, name: str) -> str:
    path = cell.get("path") if isinstance(cell, dict) else None
    if not path:
        return f"row {row} of {file} has no image bytes in column {name!r}; fill or remove the row"
    return (
        f"row {row} of {file} holds the path {readable_name(path)} in column {name!r} but no image "
        f"bytes: name the folder with the image files as train_images, or {_EMBED}"
    )


def _check_nulls(column: pa.Array, first_row: int, file: Path) -> pa.Array:
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"row {row} of {readable_name(file)} has no label; label every image or set "
            "images.label_column: null"
        )
    return column


def _declared_names(
    files: Sequence[Path], shards: Sequence[pq.ParquetFile], column: str
) -> tuple[str, ...] | None:
    """Return the ClassLabel names that all shards declare, or None."""
    declared = [_class_label_names(shard.schema_arrow, column) for shard in shards]
    for file, names in zip(files, declared, strict=True):
        if names != declared[0]:
            raise DataError(
                f"{readable_name(file)} declares other class names than {readable_name(files[0])}: "
                f"{_listed(names)} instead of {_listed(declared[0])}; shards of one split must "
                "agree"
            )
    return None if declared[0] is None else class_names(declared[0], files[0])


def _listed(names: tuple[object, ...] | None) -> str:
    if names is None:
        return "none"
    return ", ".join(readable_name(str(name)) for name in names[:_LISTED_NAMES])


def _class_label_names(schema: pa.Schema, column: str) -> tuple[object, ...] | None:
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        feature = metadata["info"]["features"][column]
        return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
