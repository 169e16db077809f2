"""Makes text fit to be shown, logged or recorded: without secrets, and valid Unicode."""

import re
import sys
from pathlib import Path

from phoenix_pipeline.images import encodable

_HIDDEN = "***"
# user:password@ of an address, and values such as token=... in its query.
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s'\"]+@")
_NAMES = r"[\w.-]*(?:password|passwd|secret|token|credential|api[_-]?key|access[_-]?key|signature)"
_IN_QUERY = re.compile(rf"([?&,\s]{_NAMES}=)[^&,\s'\"]+", re.IGNORECASE)
_NAME = re.compile(_NAMES + r"[\w-]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return ``text`` with the passwords of addresses and the values of secret keys hidden.

    Bytes of file names that are no text are escaped: neither files nor databases take them.
    """
    text = _IN_ADDRESS.sub(f"{_HIDDEN}@", encodable(text))
    return _IN_QUERY.sub(rf"\g<1>{_HIDDEN}", text)


def shown_command() -> str:
    """Return this process's command as it may be recorded."""
    return without_secrets(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def shown_value(name: str, value: object) -> str:
    """Return the setting ``name`` as it may be recorded."""
    if value is not None and _NAME.fullmatch(name):
        return _HIDDEN
    return without_secrets(str(value))
