"""JSON files: complete or as they were, and read back or refused."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from phoenix_pipeline.checkpoints import atomic_path, plain_value
from phoenix_pipeline.errors import CheckpointError, StorageError

Checked = TypeVar("Checked")

_SHOWN = 4
_MAYBE_HALF_A_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, NumPy allowed and NaN not; raises StorageError."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False, default=plain_value)
    except ValueError as error:
        raise StorageError(
            f"{path} was not written: {error}; JSON has only finite numbers"
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; raises CheckpointError when the file is missing or broken, half characters too."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = json.loads(text)
        if _MAYBE_HALF_A_CHARACTER.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is not usable JSON: it is nested too deep") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    return value


def check_content(content: Any, kind: TypeAdapter[Checked], origin: Path | str) -> Checked:
    """Return ``content`` of ``origin`` as a ``kind``, more keys allowed; raises CheckpointError."""
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        keys = [".".join(map(str, e["loc"])) or "content" for e in error.errors()]
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        raise CheckpointError(
            f"{origin} is of another program or version: it has no usable "
            f"{', '.join(keys[:_SHOWN])}{more}; make it again"
        ) from error
