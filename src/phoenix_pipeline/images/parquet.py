"""Read Hugging Face style image Parquet in small batches of rows."""

import json
import logging
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
from phoenix_pipeline.images.stack import ImageStack

logger = logging.getLogger(__name__)

_BATCH_ROWS = 256
_READ_BUFFER_BYTES = 1 << 20


def read_parquet(files: Sequence[Path], config: ImagesConfig) -> ImageSet:
    """Read one split from its shards, in order.

    Class names come from the ClassLabel feature of the Hugging Face schema metadata when there is
    one, else from the label values in order. Raises DataError naming file and row.
    """
    shards = [_open(file, config) for file in files]
    num_images = sum(shard.metadata.num_rows for shard in shards)
    if num_images == 0:
        raise DataError(f"{files[0]} holds no rows; at least one image is needed")
    stack = ImageStack(num_images, config.channels, config.image_size)
    labels: list[pa.Array] = []

    def encoded() -> Iterator[tuple[bytes, str]]:
        for file, shard in zip(files, shards, strict=True):
            row = 0
            for batch in iterate_batches(shard, file):
                yield from _image_bytes(batch, config.image_column, row, file)
                if config.label_column is not None:
                    labels.append(_check_nulls(batch.column(config.label_column), row, file))
                row += batch.num_rows

    stack.add_all(encoded())
    if config.label_column is None:
        return ImageSet(stack.images())
    names = _declared_names(files, shards, config.label_column)
    return ImageSet(stack.images(), *_number_labels(labels, names, files[0]))


@contextmanager
def _refused(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file} cannot be read as a Parquet file: {reason}") from error


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
                f"{file} has no column {column!r}; it has {', '.join(schema.names) or 'none'}: "
                f"set images.{key} to one of these{hint}"
            )
    kind = schema.field(config.image_column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"column {config.image_column!r} of {file} holds {kind}; allowed are encoded image "
            f"bytes (binary) or struct{{bytes, path}}: set images.image_column"
        )
    return shard


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
    for row, data in enumerate(cells.to_pylist(), first_row):
        if data is None:
            raise DataError(f"row {row} of {file} has no image bytes in column {name!r}")
        yield data, f"row {row} of {file}"


def _check_nulls(column: pa.Array, first_row: int, file: Path) -> pa.Array:
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"row {row} of {file} has no label; label every image or set images.label_column: null"
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
                f"{file} declares other class names than {files[0]}: {names} instead of "
                f"{declared[0]}; shards of one split must agree"
            )
    return declared[0]


def _class_label_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        feature = metadata["info"]["features"][column]
        return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None


def _number_labels(
    chunks: Sequence[pa.Array], names: tuple[str, ...] | None, file: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels 0..K-1 and the K class names."""
    kind = chunks[0].type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        raise DataError(
            f"labels of {file} are of type {kind}; integers or strings are allowed: set "
            f"images.label_column, or null if the images are unlabelled"
        )
    values = np.array([value for chunk in chunks for value in chunk.to_pylist()])
    if not pa.types.is_integer(kind):
        found, labels = np.unique(values, return_inverse=True)
        return labels.astype(np.int64), tuple(map(str, found))
    limit = len(names) if names is not None else None
    wrong = np.flatnonzero((values < 0) | ((values >= limit) if limit is not None else False))
    if len(wrong):
        allowed = f"0 to {limit - 1}" if limit is not None else "0 and above"
        raise DataError(
            f"row {wrong[0]} of {file} has label {values[wrong[0]]}; allowed are {allowed}, or set "
            f"images.label_column: null for unlabelled images"
        )
    if names is not None:
        return values.astype(np.int64), names
    found, labels = np.unique(values, return_inverse=True)
    return labels.astype(np.int64), tuple(map(str, found))
