"""A setting that names a component: ours, one of an installed package, or a registered one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from phoenix_pipeline.registry import foreign_names


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
