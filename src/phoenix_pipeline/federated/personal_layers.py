"""Personalization layers: named by prefixes, they stay on the client (FedPer, arXiv 1912.00818)."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from phoenix_pipeline.config import ModelConfig, PersonalLayersConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of


def personal_prefixes(
    config: PersonalLayersConfig, model: ModelConfig, names: Iterable[str]
) -> tuple[str, ...]:
    """Return personal prefixes among ``names``; raises SettingsError for none, or all."""
    names = list(names)
    layers, presets = config.layers, family_of(model).personal_presets(model)
    if isinstance(layers, str) and layers not in presets:
        raise SettingsError(
            f"personal_layers.layers is {layers!r}; with model.family {model.family} allowed are "
            f"{''.join(f'{preset}, ' for preset in presets)}a list of prefixes, or null"
        )
    prefixes = presets[layers] if isinstance(layers, str) else tuple(layers or ())
    for prefix in prefixes:
        if not any(is_personal(name, (prefix,)) for name in names):
            raise SettingsError(
                f"personal_layers.layers has {prefix!r}, which no layer of the model starts with; "
                f"allowed are {''.join(f'{name}, ' for name in presets)}or a list out of "
                f"{_layers(names)}"
            )
    prefixes += family_of(model).layers_that_stay(model)
    if all(is_personal(name, prefixes) for name in names):
        raise SettingsError(
            "personal_layers.layers names every layer, so that clients would share nothing; "
            "leave some out"
        )
    return prefixes


def is_personal(name: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether ``name`` belongs to a layer of ``prefixes``; ``*.``: wherever it is."""
    return any(
        f".{prefix[2:]}." in name
        if prefix.startswith("*.")
        else name == prefix or name.startswith(f"{prefix}.")
        for prefix in prefixes
    )


def samples_are_personal(prefixes: tuple[str, ...], model: ModelConfig) -> bool:
    """Return whether clients draw different images; a GAN's discriminator draws none."""
    undrawn = family_of(model).undrawn
    return any(prefix.split(".")[0] not in undrawn for prefix in prefixes)


def split_personal(
    state: Mapping[str, Tensor], prefixes: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (shared, personal) arrays of a network's state; no tensor is copied."""
    shared = {name: t for name, t in state.items() if not is_personal(name, prefixes)}
    return shared, {name: t for name, t in state.items() if name not in shared}


def _layers(names: list[str]) -> str:
    """Return the prefixes that a user may name: top-level layers, blocks by number."""
    found: dict[str, None] = {}
    for name in names:
        first, second, *_ = [*name.split("."), ""]
        found[f"{first}.{second}" if second.isdigit() else first] = None
    return ", ".join(found)
