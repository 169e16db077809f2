"""Personalization layers: named by prefixes, they stay on the client (FedPer, arXiv 1912.00818)."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from phoenix_pipeline.config import ModelConfig, PersonalLayersConfig
from phoenix_pipeline.errors import SettingsError

_DISCRIMINATOR = "discriminator"
_OUTPUT = ("conv_norm_out", "conv_out")
_PRESETS = {
    "output": _OUTPUT,
    "last_up_block": ("up_blocks.{last}", *_OUTPUT),
    "decoder": ("up_blocks", *_OUTPUT),
    "time_embedding": ("time_embedding",),
    "class_embedding": ("class_embedding",),
}


def personal_prefixes(
    config: PersonalLayersConfig, model: ModelConfig, names: Iterable[str]
) -> tuple[str, ...]:
    """Return the prefixes of the personal layers among the network's arrays ``names``.

    Presets of the U-Net: ``output`` is the output normalisation and convolution, ``last_up_block``
    that and the last upsampling block, ``decoder`` that and all upsampling blocks,
    ``time_embedding`` the embedding of the timestep, ``class_embedding`` that of the class of a
    conditional model. ``model.dcgan.federate: generator`` adds the
    discriminator.

    Raises:
        SettingsError: a prefix matches nothing, or nothing is left to share.
    """
    names = list(names)
    layers = config.layers
    prefixes = _preset(layers, model) if isinstance(layers, str) else tuple(layers or ())
    for prefix in prefixes:
        if not any(is_personal(name, (prefix,)) for name in names):
            raise SettingsError(
                f"personal_layers.layers has {prefix!r}, which no layer of the model starts with; "
                f"allowed are presets {', '.join(_PRESETS)} or a list out of {_layers(names)}"
            )
    if model.family == "dcgan" and model.dcgan.federate == "generator":
        prefixes += (_DISCRIMINATOR,)
    if all(is_personal(name, prefixes) for name in names):
        raise SettingsError(
            "personal_layers.layers names every layer, so that clients would share nothing; "
            "leave some out"
        )
    return prefixes


def is_personal(name: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether the array ``name`` belongs to a layer of ``prefixes``."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def samples_are_personal(prefixes: tuple[str, ...]) -> bool:
    """Return whether clients draw different images; a discriminator draws none."""
    return any(prefix.split(".")[0] != _DISCRIMINATOR for prefix in prefixes)


def split_personal(
    state: Mapping[str, Tensor], prefixes: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (shared, personal) arrays of a network's state; no tensor is copied."""
    shared = {name: t for name, t in state.items() if not is_personal(name, prefixes)}
    return shared, {name: t for name, t in state.items() if name not in shared}


def _preset(name: str, model: ModelConfig) -> tuple[str, ...]:
    if name not in _PRESETS:
        raise SettingsError(
            f"personal_layers.layers is {name!r}; allowed are {', '.join(_PRESETS)}, a list of "
            "prefixes, or null"
        )
    if model.family != "diffusion":
        raise SettingsError(
            f"personal_layers.layers {name!r} is a preset of the U-Net, but model.family is "
            f"{model.family}; give a list of prefixes, such as [generator], or null"
        )
    last = len(model.unet.block_out_channels) - 1
    return tuple(prefix.format(last=last) for prefix in _PRESETS[name])


def _layers(names: list[str]) -> str:
    """Return the prefixes that a user may name: top-level layers, blocks by number."""
    found: dict[str, None] = {}
    for name in names:
        first, second, *_ = [*name.split("."), ""]
        found[f"{first}.{second}" if second.isdigit() else first] = None
    return ", ".join(found)
