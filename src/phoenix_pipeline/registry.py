"""Components by name: our own, those of installed packages, and those of the running program.

What a setting may be is a :class:`Registry`, and a name that is not in it is an error. A package
adds a component by an entry point of the group ``phoenix_pipeline.<kind>``, a program by
:func:`register`, a run by modules that do so (``run.extensions``). Nothing is imported because a
message or a model's file names it.
"""

import importlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from types import ModuleType
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

# Modules, by commas: processes that this one starts find them there.
_EXTENSIONS = "PHOENIX_EXTENSIONS"

Entry = TypeVar("Entry")

_registered: dict[str, dict[str, Any]] = defaultdict(dict)


class Registry(Mapping[str, Entry]):
    """The components of one kind, ``own`` being ours; entry points are loaded when asked for."""

    def __init__(self, kind: str, own: Mapping[str, Entry]) -> None:
        self.kind = kind
        self.own = dict(own)

    def __getitem__(self, name: str) -> Entry:
        if name in self.own:
            return self.own[name]
        extension_modules()
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
    """Make ``component`` known as ``name`` in this process; raises SettingsError for no kind."""
    if kind not in KINDS:
        raise SettingsError(f"components are of the kinds {', '.join(KINDS)}; got {kind!r}")
    _registered[kind][name] = component


def load_extensions(modules: Sequence[str]) -> None:
    """Import ``modules``, here and in processes to come; raises SettingsError."""
    os.environ[_EXTENSIONS] = ",".join(modules)
    extension_modules()


def extension_modules() -> tuple[ModuleType, ...]:
    """Return the modules of ``run.extensions``, imported."""
    named = os.environ.get(_EXTENSIONS, "")
    return tuple(_import(name) for name in named.split(",") if name)


def foreign_names(kind: str) -> list[str]:
    """Return the names of the components that are not our own."""
    extension_modules()
    return list(dict.fromkeys([*_registered[kind], *_installed(kind)]))


def look_up(entries: Mapping[str, Entry], name: str, setting: str) -> Entry:
    """Return ``entries[name]``, which ``setting`` chose; raises SettingsError listing the names."""
    if name not in entries:
        raise SettingsError(f"{setting} is {name!r}; allowed are {', '.join(entries)}")
    return entries[name]


@cache
def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise SettingsError(
            f"run.extensions names {name}, which cannot be imported: {type(error).__name__}: "
            f"{reason}; install its package, put it into the project's src, or name its folder in "
            "PYTHONPATH"
        ) from error


@cache
def _installed(kind: str) -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=f"phoenix_pipeline.{kind}")}
