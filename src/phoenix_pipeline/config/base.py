"""What every parameter group is made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from phoenix_pipeline.registry import foreign_names

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]

AUTO = "auto"


class Group(BaseModel):
    """A parameter group: immutable, and a misspelt key is an error.

    Keys in ``BY_IMAGE_SIZE`` may be ``auto``: they wait for the images, and :meth:`settled` gives
    them their values. Until then they are read, stored and shown as ``auto``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    BY_IMAGE_SIZE: ClassVar[tuple[str, ...]] = ()
    _auto: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def auto(self) -> frozenset[str]:
        """The keys that still wait for the images."""
        return self._auto

    def waiting(self) -> Iterator[str]:
        """Yield the dotted names of the keys that wait for the images, inner groups included."""
        yield from sorted(self._auto)
        for name in type(self).model_fields:
            inner = getattr(self, name)
            if isinstance(inner, Group):
                yield from (f"{name}.{key}" for key in inner.waiting())

    def settled(self, **values: Any) -> Self:
        """Return a copy whose waiting keys have these values; what was set stays as it is."""
        chosen = {name: value for name, value in values.items() if name in self._auto}
        copy = self.model_copy(update=chosen)
        copy._auto = self._auto - chosen.keys()
        return copy

    @model_validator(mode="wrap")
    @classmethod
    def _keep_auto(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, Mapping):
            return handler(values)
        waiting = {name for name in cls.BY_IMAGE_SIZE if values.get(name) == AUTO}
        made = handler({name: value for name, value in values.items() if name not in waiting})
        made._auto = frozenset(waiting)
        for name in waiting:
            # What was forgotten to be settled must not pass for a number. Kedro reads every field.
            made.__dict__[name] = AUTO
        return made

    @model_serializer(mode="wrap")
    def _show_auto(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        without = self.model_copy()
        for name in self._auto:
            del without.__dict__[name]
        shown: dict[str, Any] = handler(without)
        return {**shown, **dict.fromkeys(sorted(self._auto), AUTO)}


@dataclass(frozen=True)
class Component:
    """Mark of a text field: ``kind`` as in ``registry``, ``own`` the names of our components."""

    kind: str
    own: tuple[str, ...]

    def check(self, name: str) -> str:
        """Return ``name`` if there is such a component; others are a validation error."""
        if name in self.own or name in foreign_names(self.kind):
            return name
        names = [repr(known) for known in (*self.own, *foreign_names(self.kind))]
        raise PydanticKnownError(
            "literal_error", {"expected": f"{', '.join(names[:-1])} or {names[-1]}"}
        )

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Mapping[str, Any]:
        return {"type": "string", "enum": list(self.own)}


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` laid over it, block by block; lists and values are replaced."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = deep_merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings and Pydantic models by dotted name."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def is_set(block: Any, path: tuple[str, ...]) -> bool:
    """Return whether nested mappings have anything at ``path``."""
    for name in path:
        if not isinstance(block, Mapping) or name not in block:
            return False
        block = block[name]
    return True
