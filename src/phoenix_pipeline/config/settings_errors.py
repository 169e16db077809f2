"""What is wrong with each setting: its name, what was got, what is allowed and where it is set."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

Path = tuple[str, ...]

_NAME = re.compile(r"(?<![\w./])[a-z_]+(?:\.[a-z0-9_]+)+(?![\w/(])")


def name_in_place(message: str, place: Callable[[Path], Path]) -> str:
    """Return ``message`` with each dotted name of a setting as ``place`` maps it."""
    return _NAME.sub(lambda found: ".".join(place(tuple(found[0].split(".")))), message)


def hint(name: str, allowed: Iterable[str]) -> str:
    """Return the nearest allowed name if there is one, then all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {near[0]}?" if near else ";"
    return f"{guess} allowed: {', '.join(names)}"


def explain(
    model: type[BaseModel],
    values: Mapping[str, Any],
    place: Callable[[Path], Path],
    prefix: Path = (),
    origin: Callable[[Path], str] = lambda path: "",
) -> list[str]:
    """Validate ``values`` and return a line for each setting that is wrong; empty when all is well.

    ``place`` maps a path (beginning with ``prefix``) to the one that the user wrote; ``origin``
    tells the file of that.
    """
    try:
        model.model_validate(values)
    except ValidationError as error:
        reasons: dict[Path, list[str]] = {}
        for detail in error.errors(include_url=False):
            path, got, model_there = _locate(model, values, detail["loc"])
            reason = _reason(detail["type"], detail["msg"], path, model_there)
            reason = name_in_place(reason, place)
            known = reasons.setdefault(path, [] if detail["type"] in _WITHOUT_GOT else [_got(got)])
            if reason not in known:
                known.append(reason)
        return [_line(place((*prefix, *path)), parts, origin) for path, parts in reasons.items()]
    return []


_WITHOUT_GOT = ("extra_forbidden", "value_error")


def _line(path: Path, parts: list[str], origin: Callable[[Path], str]) -> str:
    return f"{'.'.join(path)}: {', '.join(parts)}{origin(path)}"


def _got(value: Any) -> str:
    return "got " + ("null" if value is None else repr(value))


def _locate(
    model: type[BaseModel], values: Any, location: tuple[int | str, ...]
) -> tuple[Path, Any, type[BaseModel]]:
    """Return path, value and model of an error; no list and no branch of a union is in the path."""
    path: list[str] = []
    for step in location:
        if not isinstance(values, Mapping) or step not in values:
            break
        values = values[step]
        path.append(str(step))
        field = model.model_fields.get(str(step))
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return tuple(path), values, model


def _reason(kind: str, message: str, path: Path, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return "unknown key" + hint(path[-1], model.model_fields)
    if kind in ("model_type", "dict_type"):
        return "must be a block of settings; allowed: " + ", ".join(model.model_fields)
    message = message.removeprefix("Value error, ")
    subject, should, rest = message.partition(" should ")
    return f"must {rest}" if should and " " not in subject else message
