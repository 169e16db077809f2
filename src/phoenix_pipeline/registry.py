"""Components by name: our own, those of installed packages, and those of the running program.

What a setting may be is a :class:`Registry`, and a name that is not in it is an error. A package
adds a component by an entry point of the group ``phoenix_pipeline.<kind>``, a program by
:func:`register`. Nothing is imported because a message or a file names it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from typing import Any, TypeVar

from phoenix_pipeline.errors import SettingsError

KINDS = (
    "aggregation_rules",
    "codecs",
    "families",
    "partition_schemes",
    "samplers",
    "server_optimizers",
    "strategies",
)

Entry = TypeVar("Entry")

_registered: dict[str, dict[str, Any]] = defaultdict(dict)


class Registry(Mapping[str, Entry]):
    """The components of one kind, ``own`` being ours; entry points are loaded when asked for."""

    def __init__(self, kind: str, own: Mapping[str, Entry]) -> None:
        """Begin with our ``own`` components; ``kind`` is one of :data:`KINDS`."""
        self.kind = kind
        self.own = dict(own)

    def __getitem__(self, name: str) -> Entry:
        if name in self.own:
            return self.own[name]
        if name in _registered[self.kind]:
            entry: Entry = _registered[self.kind][name]
            return entry
        if name not in _installed(self.kind):
            raise KeyError(name)
        loaded: Entry = _installed(self.kind)[name].load()
        return loaded

    def __iter__(self) -> Iterator[str]:
        return iter([*self.own, *foreign_names(self.kind)])

    def __len__(self) -> int:
        return len(list(iter(self)))


def register(kind: str, name: str, component: Any) -> None:
    """Make ``component`` known as ``name`` in this process.

    Args:
        kind: one of :data:`KINDS`.
        name: as settings will call it; a name that is registered already gets the new component.
        component: what the registry of that kind holds (docs/extending.md).

    Raises:
        SettingsError: there is no such kind.
    """
    if kind not in KINDS:
        raise SettingsError(f"components are of the kinds {', '.join(KINDS)}; got {kind!r}")
    _registered[kind][name] = component


def foreign_names(kind: str) -> list[str]:
    """Return the names of the components that are not our own."""
    return [*_registered[kind], *(name for name in _installed(kind) if name not in _registered)]


def look_up(entries: Mapping[str, Entry], name: str, setting: str) -> Entry:
    """Return ``entries[name]``, which ``setting`` chose; raises SettingsError listing the names."""
    if name not in entries:
        raise SettingsError(f"{setting} is {name!r}; allowed are {', '.join(entries)}")
    return entries[name]


@cache
def _installed(kind: str) -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=f"phoenix_pipeline.{kind}")}
