"""Phoenix: diffusion models trained across data owners who never share their images.

``import phoenix_pipeline as phoenix`` gives the Python interface of docs/python.md. It is imported
where it is first used, so that the import itself is light and changes nothing.
"""

# ruff: noqa: F403, F405 - the interface is named below, once
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phoenix_pipeline.api import *

__version__ = "0.1.0"
__all__ = [
    "ARM_NAMES",
    "Family",
    "ImageSet",
    "Images",
    "Model",
    "OneLossFamily",
    "PhoenixError",
    "Scores",
    "Strategy",
    "load",
    "partition",
    "read_images",
    "register",
    "score",
    "train",
]


if not TYPE_CHECKING:  # else checkers would take any name for one of the interface's

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return getattr(import_module("phoenix_pipeline.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
