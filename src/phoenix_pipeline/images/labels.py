"""Labels as numbers; class and file names as text that any file, figure and table can hold.

A file system gives any bytes and any Unicode; a Parquet file any JSON string. Python keeps what is
no text as lone surrogates, which cannot be encoded.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from phoenix_pipeline.errors import DataError


def check_kinds(files: Sequence[Path], kinds: Sequence[pa.DataType], column: str) -> None:
    """Raise DataError for labels that are neither integers nor strings, or differ between files."""
    for file, kind in zip(files, kinds, strict=True):
        if _kind(kind) is None:
            raise DataError(
                f"labels of {readable_name(file)} in column {column!r} are of type {kind}; "
                f"integers or strings are allowed: set images.label_column, or null if the images "
                f"are unlabelled"
            )
        if _kind(kind) != _kind(kinds[0]):
            raise DataError(
                f"column {column!r} of {readable_name(file)} holds {_kind(kind)} labels ({kind}), "
                f"that of {readable_name(files[0])} {_kind(kinds[0])} labels ({kinds[0]}); the "
                "files of one split must agree: write one of them anew, name one file alone, or "
                "set images.label_column: null"
            )


def number_labels(
    values: Sequence[int] | Sequence[str], names: tuple[str, ...] | None, file: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels int64 [N] and K names, or values as ``names``; raises DataError."""
    found = np.array(values)
    if found.dtype.kind in "iu":
        limit = len(names) if names is not None else None
        wrong = np.flatnonzero((found < 0) | ((found >= limit) if limit is not None else False))
        if len(wrong):
            allowed = f"0 to {limit - 1}" if limit is not None else "0 and above"
            raise DataError(
                f"row {wrong[0]} of {readable_name(file)} has label {found[wrong[0]]}; allowed are "
                f"{allowed}, or set images.label_column: null for unlabelled images"
            )
        if names is not None:
            return found.astype(np.int64), names
    classes, labels = np.unique(found, return_inverse=True)
    return labels.astype(np.int64), class_names([str(name) for name in classes], file)


def class_names(names: Sequence[object], file: Path) -> tuple[str, ...]:
    """Return ``names`` as readable text; raises DataError for no text and for doubles."""
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise DataError(
                f"{readable_name(file)} declares {name!r} as the name of class {position}; a text "
                "is needed: write the file anew with names, or set images.label_column: null"
            )
    readable = tuple(readable_name(str(name)) for name in names)
    twice = [name for name, count in Counter(readable).items() if count > 1]
    if twice:
        places = [position for position, name in enumerate(readable) if name == twice[0]]
        raise DataError(
            f"{readable_name(file)} has the class name {twice[0]!r} twice (classes {places[0]} and "
            f"{places[1]}); each name once is needed: write the file anew, or set "
            "images.label_column: null"
        )
    return readable


def _kind(kind: pa.DataType) -> str | None:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_integer(kind):
        return "integer"
    return "string" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


_ESCAPED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")


def readable_name(name: str | os.PathLike[str]) -> str:
    r"""Return a name or a path as valid text on one line, composed (NFC), for a message.

    Bytes that are not UTF-8 become ``\xe9``, other lone surrogates ``\ud800``, and control
    characters ``\n`` or ``\x1b``.
    """
    composed = unicodedata.normalize("NFC", os.fspath(name))
    if composed.isascii() and composed.isprintable():
        return composed
    return "".join(map(_shown, composed))


def encodable(text: str) -> str:
    r"""Return ``text`` with what is no Unicode escaped (``\xe9``), and nothing else changed."""
    if text.isascii():
        return text
    return "".join(_shown(c) if unicodedata.category(c) == "Cs" else c for c in text)


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte kept by Python's ``surrogateescape``
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
