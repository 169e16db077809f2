"""The cells of a grid: their names, their settings, and the hash that tells when those change."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.framework.project import settings as project_settings

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS
from phoenix_pipeline.config.base import Group, flatten
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader
from phoenix_pipeline.framework.sweeps.settings import SweepConfig

_DIGITS = 12
_MAX_NAME = 120


@dataclass(frozen=True)
class Cell:
    """One combination of a grid.

    ``labels``: axis -> value as text; ``values``: axis -> value as the table shows it;
    ``parameters``: nested, as Kedro takes them at run time.
    """

    name: str
    labels: dict[str, str]
    values: dict[str, Any]
    parameters: dict[str, Any]


def expand(config: SweepConfig) -> list[Cell]:
    """Return all cells, the last axis varying fastest; raises SettingsError for a key set twice."""
    axes = {axis: _axis(axis, values) for axis, values in config.grid.items()}
    fixed = dict(flatten(config.parameters))
    cells = []
    for labels in itertools.product(*axes.values()):
        chosen = dict(zip(axes, labels, strict=True))
        settings = dict(fixed)
        for axis, label in chosen.items():
            for key, value in axes[axis][label].items():
                if key in settings:
                    raise SettingsError(
                        f"grid.{axis}: {key} is set by parameters or by another axis as well; "
                        "set it in one place"
                    )
                settings[key] = value
        values = {axis: _shown(config.grid[axis], label) for axis, label in chosen.items()}
        cells.append(Cell(_name(chosen), chosen, values, nest(settings)))
    if len({cell.name for cell in cells}) < len(cells):
        raise SettingsError("grid: two cells get the same name; name the values of their axis")
    return cells


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted names as nested blocks; raises SettingsError where a block is also a value."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *blocks, last = key.split(".")
        place = nested
        for block in blocks:
            place = place.setdefault(block, {})
            if not isinstance(place, dict):
                raise SettingsError(f"{key}: {block} has a value of its own; set one of the two")
        if last in place:
            raise SettingsError(f"{key}: is set twice")
        place[last] = value
    return nested


def arm_digests(
    conf: Path, env: str | None, parameters: dict[str, Any], arms: tuple[str, ...]
) -> dict[str, str]:
    """Return a hash per arm of all that its result depends on; raises SettingsError."""
    loader = PhoenixConfigLoader(conf, env, parameters, **project_settings.CONFIG_LOADER_ARGS)
    composed = loader["parameters"]
    _check_reach(composed, parameters, arms)
    sources = {key: loader["globals"].get(key) for key in ("train_images", "test_images")}
    sources |= {key: parameters[key] for key in sources if key in parameters}
    shared = {group: composed[group] for group in SHARED_GROUPS}
    return {arm: digest([sources, shared, composed[arm]]) for arm in arms}


def digest(value: Any) -> str:
    """Return a short hash of anything that JSON can hold; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _check_reach(
    composed: dict[str, Any], parameters: dict[str, Any], arms: tuple[str, ...]
) -> None:
    given = dict(flatten(parameters))
    for arm in arms:
        reached = dict(flatten(composed[arm]))
        for key, value in given.items():
            if key.split(".")[0] in ARM_GROUPS and f"{arm}.{key}" not in given:
                if key in reached and reached[key] != value:
                    raise SettingsError(
                        f"{key} does not reach the arm {arm}, whose own block in conf sets it to "
                        f"{reached[key]}; set {arm}.{key} in the sweep as well"
                    )


def _axis(axis: str, values: list[Any] | dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return label -> the settings that it stands for, by dotted name."""
    if isinstance(values, dict):
        return {name: dict(flatten(settings)) for name, settings in values.items()}
    return {_label(value): {axis: value} for value in values}


def _label(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _shown(values: list[Any] | dict[str, dict[str, Any]], label: str) -> Any:
    """Return numbers as numbers, so that tables and heat maps order them; all else as text."""
    numeric = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not numeric:
        return label
    return next(value for value in values if _label(value) == label)


def _name(labels: Mapping[str, str]) -> str:
    """Return a folder name that tells the cell: ``beta=0.1,alpha=0.5,seed=0``."""
    short = [axis.rsplit(".", 1)[-1] for axis in labels]
    keys = short if len(set(short)) == len(short) else list(labels)
    name = ",".join(f"{key}={label}" for key, label in zip(keys, labels.values(), strict=True))
    safe = re.sub(r"[^\w.,=+-]", "_", name)
    return safe if len(safe) <= _MAX_NAME else f"{safe[:_MAX_NAME]}-{digest(dict(labels))}"


def _plain(value: Any) -> Any:
    if isinstance(value, Group):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no setting")
