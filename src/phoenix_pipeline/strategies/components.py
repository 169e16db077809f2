"""The strategies that there are: one in each module of this package, and those of others."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from phoenix_pipeline import strategies
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.registry import Registry, look_up
from phoenix_pipeline.strategies.strategy import Strategy

_SETTING = "federation.strategies"


@cache
def known_strategies() -> Registry[type[Strategy]]:
    """Return the strategies by name."""
    for module in pkgutil.iter_modules(strategies.__path__, f"{strategies.__name__}."):
        importlib.import_module(module.name)
    package = f"{strategies.__name__}."
    own = {c.name: c for c in Strategy.__subclasses__() if c.__module__.startswith(package)}
    return Registry("strategies", dict(sorted(own.items())))


def build_strategies(chosen: Mapping[str, Mapping[str, Any]]) -> list[Strategy]:
    """Return the strategies that ``federation.strategies`` asks for, in its order.

    Raises:
        SettingsError: a name, a key or a value is not allowed.
    """
    return [_build(name, told) for name, told in chosen.items()]


def _build(name: str, told: Mapping[str, Any] | None) -> Strategy:
    strategy = look_up(known_strategies(), name, _SETTING)
    try:
        settings = strategy.Settings.model_validate(told or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (_SETTING, name, *first["loc"])))
        allowed = ", ".join(strategy.Settings.model_fields) or "no keys"
        raise SettingsError(
            f"{where}: {first['msg']}, got {first['input']!r}; {name} has {allowed}"
        ) from error
    return strategy(settings)
