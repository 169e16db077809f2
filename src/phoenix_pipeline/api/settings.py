"""Settings of a call: the defaults that the package brings, with the caller's over them.

``config/defaults.yml`` holds what ``conf/base`` says; scripts/make_default_settings.py writes it.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypedDict

import yaml

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS, ArmSettings, Group, deep_merge
from phoenix_pipeline.config.settings_errors import explain, hint
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.registry import look_up

Settings = Mapping[str, Any]
"""A group's settings by key, as in YAML; what is not named keeps its default."""

_DEFAULTS: dict[str, Any] = yaml.safe_load(
    files("phoenix_pipeline.config").joinpath("defaults.yml").read_text(encoding="utf-8")
)


class ArmGroups(TypedDict, total=False):
    """The groups of an arm, of which a call names those that it changes; see ``ArmSettings``."""

    shared_pool: Settings | None
    model: Settings | None
    training: Settings | None
    federation: Settings | None
    personal_layers: Settings | None
    threshold_filter: Settings | None
    sampling: Settings | None


ARM_NAMES: tuple[str, ...] = tuple(_DEFAULTS["arms"])
"""The arms that the package brings."""


def arm_settings(arm: str, groups: Mapping[str, object]) -> ArmSettings:
    """Return the defaults of ``arm`` with ``groups`` over them; raises SettingsError."""
    own = look_up(_DEFAULTS["arms"], arm, "arm")
    values: dict[str, dict[str, Any]] = {}
    unknown = (name for name in groups if name not in ARM_GROUPS)
    problems = [f"{name}: unknown group{hint(name, ARM_GROUPS)}" for name in unknown]
    for name, model in ARM_GROUPS.items():
        block = deep_merge(_DEFAULTS.get(name, {}), own.get(name, {}))
        values[name] = deep_merge(block, _block(name, groups.get(name)))
        problems += explain(model, values[name], lambda path: path, (name,))
    if problems:
        raise SettingsError("; ".join(problems))
    return ArmSettings.model_validate(values)


def shared_group(name: str, given: Settings | None) -> Any:
    """Return the group ``name`` with ``given`` over its defaults; raises SettingsError."""
    values = deep_merge(_DEFAULTS.get(name, {}), _block(name, given))
    return validated(SHARED_GROUPS[name], name, values)


def override(group: Group, name: str, given: Settings | None) -> Any:
    """Return ``group``, called ``name``, with ``given`` over it; raises as :func:`shared_group`."""
    values = deep_merge(group.model_dump(mode="json"), _block(name, given))
    return validated(type(group), name, values)


def validated(model: type[Group], name: str, values: Settings) -> Any:
    """Return ``values`` as ``model``; raises SettingsError for what it does not allow."""
    if problems := explain(model, values, lambda path: path, (name,)):
        raise SettingsError("; ".join(problems))
    return model.model_validate(values)


def _block(name: str, given: Any) -> Settings:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise SettingsError(f"{name}: got {given!r}, must be a block of settings such as a dict")
    return given
