"""The settings that made each arm: where arms differ, and everything in full."""

from collections.abc import Mapping
from typing import Any


def flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted keys and values written as in YAML."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = _write(value)
    return flat


def differing_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the settings that are not the same in all arms: dotted key -> arm -> value.

    ``settings``: arm -> its nested settings. A key that an arm does not have is ``""`` there.
    """
    flat = {arm: flatten_settings(nested) for arm, nested in settings.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    rows = {key: {arm: values.get(key, "") for arm, values in flat.items()} for key in keys}
    return {key: row for key, row in rows.items() if len(set(row.values())) > 1}


def read_setting(settings: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Return the value at a dotted ``key``, or ``default`` where the settings do not go so far."""
    value: Any = settings
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def _write(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_write, value))}]"
    return str(value)
