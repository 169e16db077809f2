"""Low-rank adapters on a U-Net whose own weights are at rest (LoRA, arXiv 2106.09685).

What is at rest lies in buffers that are no part of the network's state. Its parameters and its
state dict are then the adapters alone, and the layers that are trained whole beside them. So
whatever trains, sends, averages, clips or keeps the arrays of a network does so with these, and
knows nothing of adapters.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from phoenix_pipeline.checkpoints import checksum
from phoenix_pipeline.config import LoraConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.extras import how_to_install
from phoenix_pipeline.seeding import derive_seed

# What peft calls the only adapter of a layer, and the layer below it.
_ADAPTER, _BASE = "default", "base_layer"
_TARGETS = (nn.Linear, nn.Conv2d)
_SAVED = (*_TARGETS, nn.GroupNorm)


def add_adapters(unet: nn.Module, config: LoraConfig, seed: int) -> nn.Module:
    """Give ``unet`` adapters, B at zero and A by ``seed``; raises SettingsError without a match."""
    check_targets(unet, config)
    if find_spec("peft") is None:
        raise SettingsError(
            f"model.lora.rank is {config.rank}, but peft is not installed; install it by "
            f"{how_to_install('lora')}, or set model.lora.rank: 0"
        )
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    adapters = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha or config.rank,
        target_modules=list(config.target_modules),
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "adapters"))
        inject_adapter_in_model(adapters, unet, adapter_name=_ADAPTER)
    factors = (".lora_B.",) if config.freeze_a else (".lora_A.", ".lora_B.")
    _lay_at_rest(unet, factors, config.modules_to_save)
    return unet


def check_targets(unet: nn.Module, config: LoraConfig) -> None:
    """Raise SettingsError for a layer that ``unet``, without adapters, has not; lists all."""
    wanted = (
        ("target_modules", config.target_modules, _TARGETS, "linear layer or convolution"),
        ("modules_to_save", config.modules_to_save, _SAVED, "layer"),
    )
    for key, ends, kinds, called in wanted:
        names = [name for name, module in unet.named_modules() if isinstance(module, kinds)]
        for end in ends:
            if not any(_ends(name, (end,)) for name in names):
                there = sorted({_last_part(name) for name in names})
                raise SettingsError(
                    f"model.lora.{key} has {end!r}, which no {called} of the network ends with; it "
                    f"has {', '.join(there)}"
                )


def has_adapters(unet: nn.Module) -> bool:
    """Return whether :func:`add_adapters` made the network."""
    return any(True for _ in _layers(unet))


def arrays_at_rest(unet: nn.Module) -> dict[str, Tensor]:
    """Return what is not trained, by name: of :func:`add_adapters`; empty for other networks."""
    if not has_adapters(unet):
        return {}
    state = unet.state_dict()
    return {name: array for name, array in unet.named_buffers() if name not in state}


def base_digest(unet: nn.Module) -> str:
    """Return 32 hex digits of all that is at rest; "" where nothing is."""
    arrays = arrays_at_rest(unet)
    return checksum(arrays, "")[:32] if arrays else ""


def wake(unet: nn.Module) -> None:
    """Make what is at rest a part of the state again, so that it can be loaded."""
    if not has_adapters(unet):
        return
    for module in unet.modules():
        module._non_persistent_buffers_set.clear()


def merge_adapters(unet: nn.Module) -> nn.Module:
    """Return a plain U-Net that predicts the same; ``unet`` itself where it has no adapters."""
    if not has_adapters(unet):
        return unet
    from diffusers import UNet2DModel

    adapted: Any = unet
    with torch.no_grad():
        state = _merged_state(unet)
    with torch.device("meta"):
        plain: nn.Module = UNet2DModel.from_config(dict(adapted.config))
    plain.load_state_dict(state, assign=True)
    return plain.train(unet.training)


def adapter_arrays(unet: nn.Module) -> dict[str, Tensor]:
    """Return what is trained, and factors at rest, named as peft does in files."""
    arrays = {n: array for n, array in unet.named_buffers() if ".lora_" in n}
    arrays |= dict(unet.named_parameters())
    return {name.replace(f".{_ADAPTER}.", "."): array.detach() for name, array in arrays.items()}


def peft_settings(unet: nn.Module) -> dict[str, Any]:
    """Return what peft needs to build such adapters again; empty for other networks."""
    layers = dict(_layers(unet))
    if not layers:
        return {}
    first = next(iter(layers.values()))
    return {
        "r": first.r[_ADAPTER],
        "lora_alpha": first.lora_alpha[_ADAPTER],
        "target_modules": sorted(layers),
    }


def _lay_at_rest(unet: nn.Module, factors: tuple[str, ...], whole: tuple[str, ...]) -> None:
    """Make buffers of all parameters but those of ``factors`` and of the layers ``whole``."""
    for prefix, module in list(unet.named_modules()):
        if isinstance(module, _SAVED) and _ends(prefix, whole):
            continue
        for name, weight in list(module._parameters.items()):
            if weight is None or any(part in f"{prefix}.{name}" for part in factors):
                continue
            del module._parameters[name]
            module.register_buffer(name, weight.detach(), persistent=False)


def _ends(name: str, ends: tuple[str, ...]) -> bool:
    """Whether the layer ``name`` ends with one of ``ends``, in whole parts."""
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _merged_state(unet: nn.Module) -> dict[str, Tensor]:
    changes = {f"{name}.weight": layer.get_delta_weight(_ADAPTER) for name, layer in _layers(unet)}
    state: dict[str, Tensor] = {}
    for name, array in (*unet.named_parameters(), *unet.named_buffers()):
        if ".lora_" in name:
            continue
        plain = name.replace(f".{_BASE}.", ".")
        state[plain] = (array + changes[plain] if plain in changes else array).detach().clone()
    return state


def _layers(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers that have an adapter, by their names in the plain network."""
    for name, module in unet.named_modules():
        if hasattr(module, _BASE) and hasattr(module, "lora_A"):
            yield name, module


def _last_part(name: str) -> str:
    """Return the end of a layer's name that says what it is: ``to_out.0``, not ``0``."""
    before, _, last = name.rpartition(".")
    return f"{before.rpartition('.')[2]}.{last}" if last.isdigit() else last
