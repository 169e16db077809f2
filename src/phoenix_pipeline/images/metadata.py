"""ImageFolder metadata: ``metadata.csv`` or ``.jsonl`` with ``file_name`` and a label column."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images.labels import check_kinds, readable_name
from phoenix_pipeline.images.sources import ImageSource

_FILE_NAME = "file_name"


@dataclass(frozen=True)
class Listed:
    """The images that metadata lists, their labels, and how many of the source are ``unlisted``."""

    files: tuple[Path, ...]
    labels: list[int] | list[str] | None
    unlisted: int


def read_metadata_tables(source: ImageSource, label_column: str | None) -> Listed:
    """Join metadata with images by ``file_name``, in its order; raises DataError."""
    tables = {file: _read(file) for file in source.tables}
    wanted = [_FILE_NAME, *([label_column] if label_column else [])]
    for file, table in tables.items():
        _check_columns(file, table, label_column)
    if label_column:
        kinds = [table.schema.field(label_column).type for table in tables.values()]
        check_kinds(list(tables), kinds, label_column)
    known = set(source.files)
    rows: dict[Path, int | str | None] = {}
    for file, table in tables.items():
        for number, row in enumerate(table.select(wanted).to_pylist()):
            image = file.parent / str(row[_FILE_NAME])
            if image not in known:
                if not image.is_relative_to(source.path):
                    continue  # metadata above the splits lists the other splits as well
                raise DataError(
                    f"row {number} of {readable_name(file)} lists "
                    f"{readable_name(str(row[_FILE_NAME]))}, which is no image below "
                    f"{readable_name(source.path)}; correct {_FILE_NAME} or remove the row"
                )
            if image in rows:
                raise DataError(f"{readable_name(image)} is listed twice in metadata; keep one row")
            if label_column and row[label_column] is None:
                raise DataError(
                    f"row {number} of {readable_name(file)} has no {label_column!r}; label every "
                    "image or set images.label_column: null"
                )
            rows[image] = row[label_column] if label_column else None
    labels: list[Any] = list(rows.values())
    return Listed(tuple(rows), labels if label_column else None, len(known - rows.keys()))


def _read(file: Path) -> pa.Table:
    try:
        if file.suffix.lower() == ".csv":
            return pyarrow.csv.read_csv(file)
        return pyarrow.json.read_json(file)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{readable_name(file)} cannot be read as a table: {reason}") from error


def _check_columns(file: Path, table: pa.Table, label_column: str | None) -> None:
    has: Sequence[str] = table.column_names
    if _FILE_NAME not in has:
        raise DataError(
            f"{readable_name(file)} has no column {_FILE_NAME!r}; it has {', '.join(has)}: rename "
            "the one with the images' file names"
        )
    if label_column is not None and label_column not in has:
        others = ", ".join(name for name in has if name != _FILE_NAME) or "none"
        raise DataError(
            f"{readable_name(file)} has no column {label_column!r}; beside {_FILE_NAME} it has "
            f"{others}: set images.label_column to one of these, or null if the images are "
            "unlabelled"
        )
