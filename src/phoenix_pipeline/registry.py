"""Choices by name: what a setting may be is a dict, and a name that is not in it is an error."""

from collections.abc import Mapping
from typing import TypeVar

from phoenix_pipeline.errors import SettingsError

Entry = TypeVar("Entry")


def look_up(entries: Mapping[str, Entry], name: str, setting: str) -> Entry:
    """Return ``entries[name]``, which ``setting`` chose; raises SettingsError listing the names."""
    if name not in entries:
        raise SettingsError(f"{setting} is {name!r}; allowed are {', '.join(entries)}")
    return entries[name]
