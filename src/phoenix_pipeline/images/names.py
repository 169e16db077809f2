"""Class and file names as text that any file, figure and table can hold.

A file system gives any bytes and any Unicode; a Parquet file any JSON string. Python keeps what is
no text as lone surrogates, which cannot be encoded.
"""

import os
import unicodedata
from pathlib import Path

_ESCAPED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")


def readable_name(name: str | os.PathLike[str]) -> str:
    r"""Return ``name`` as valid text on one line, composed (NFC).

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


def readable_path(path: Path | str) -> str:
    """Return a path for a message; see :func:`readable_name`. It may not open the file."""
    return readable_name(path)


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte kept by Python's ``surrogateescape``
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
