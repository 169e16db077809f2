"""A U-Net in the layout of diffusers: written, read, and as the start of another training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from phoenix_pipeline.checkpoints import METADATA_FILE, atomic_path, load_diffusers
from phoenix_pipeline.config import NoiseConfig
from phoenix_pipeline.diffusion.lora import (
    adapter_arrays,
    has_adapters,
    merge_adapters,
    peft_settings,
)
from phoenix_pipeline.diffusion.noise import FLOW, build_scheduler
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.json_files import read_json, write_json

if TYPE_CHECKING:
    from diffusers import UNet2DModel


# diffusers' name of it.
ADAPTERS_FILE = "pytorch_lora_weights.safetensors"


def export_pipeline(
    folder: Path,
    unet: "UNet2DModel",
    noise: NoiseConfig,
    metadata: Mapping[str, Any],
    autoencoder: nn.Module | None = None,
) -> None:
    """Write ``folder`` so that ``DDPMPipeline.from_pretrained(folder)`` loads it.

    With an ``autoencoder``, whose latents the network learnt, it is one of ``LDMPipeline``.

    The weights are safetensors; ``phoenix.json`` holds ``metadata``. Adapters are merged, and lie
    by themselves in :data:`ADAPTERS_FILE`, as diffusers names them. A folder of that name is
    replaced when the new one is complete.
    Raises StorageError: the folder could not be written in full.
    """
    from diffusers import DDPMPipeline, LDMPipeline

    parts = {"unet": merge_adapters(unet), "scheduler": build_scheduler(noise, autoencoder is None)}
    pipeline: Any = (
        LDMPipeline(vqvae=autoencoder, **parts) if autoencoder else DDPMPipeline(**parts)
    )
    with atomic_path(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        if has_adapters(unet):
            _save_adapters(temporary, unet)
        write_json(temporary / METADATA_FILE, dict(metadata))


def _save_adapters(folder: Path, unet: nn.Module) -> None:
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    StableDiffusionLoraLoaderMixin.save_lora_weights(
        folder,
        unet_lora_layers=adapter_arrays(unet),
        unet_lora_adapter_metadata=peft_settings(unet),
        weight_name=ADAPTERS_FILE,
    )


def load_unet(folder: Path) -> "UNet2DModel":
    """Return the network of a folder, on the CPU, to draw; raises CheckpointError; offline."""
    from diffusers import UNet2DModel

    folder = Path(folder)
    places = ("unet", "")
    inside = next((p for p in places if (folder / p / "config.json").is_file()), None)
    if inside is None:
        raise CheckpointError(
            f"{folder} cannot be read: it has no unet/config.json; name a folder that was exported "
            "as a diffusers pipeline"
        )
    unet: UNet2DModel = load_diffusers(
        UNet2DModel,
        folder,
        inside,
        "is not a complete diffusers pipeline",
        "export the model again",
    )
    return unet.eval()


_SCHEDULER = Path("scheduler") / "scheduler_config.json"
# What the forward process is; other keys of a scheduler are about sampling.
_PROCESS = (
    "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip
# Settings of this project by the keys of diffusers' configurations.
_SETTINGS = {
    "sample_size": "images.image_size",
    "in_channels": "images.channels",
    "out_channels": "images.channels",
    "block_out_channels": "model.unet.block_out_channels",
    "layers_per_block": "model.unet.layers_per_block",
    "down_block_types": "model.unet.attention_resolutions",
    "up_block_types": "model.unet.attention_resolutions",
    "attention_head_dim": "model.unet.attention_head_dim",
    "norm_num_groups": "model.unet.norm_num_groups",
    "num_class_embeds": "model.conditioning and the number of classes",
    "prediction_type": "model.noise.prediction_type",
    "num_train_timesteps": "model.noise.num_train_timesteps",
    "beta_schedule": "model.noise.schedule",
    "beta_start": "model.noise.beta_start",
    "beta_end": "model.noise.beta_end",
    "rescale_betas_zero_snr": "model.noise.zero_terminal_snr",
}


def load_start(folder: Path, network: nn.Module, noise: NoiseConfig) -> dict[str, Tensor]:
    """Return the weights in ``folder``, a pipeline's or a network's own, for ``network``.

    Raises CheckpointError: it holds no complete network; SettingsError: it was built otherwise,
    or for another forward process.
    """
    found = load_unet(folder)
    ours: Any = network
    theirs = dict(found.config)
    differ = _differences(theirs, dict(ours.config))
    process = _read_process(folder)
    if "linear" != process.get("beta_schedule", "linear"):
        # Only the linear schedule is made of its bounds.
        process = {k: v for k, v in process.items() if k not in ("beta_start", "beta_end")}
    differ |= _differences(process, _process(json.loads(build_scheduler(noise).to_json_string())))
    if differ:
        listed = "; ".join(f"{key} is {was}, here {now}" for key, (was, now) in differ.items())
        raise SettingsError(
            f"model.start_from {folder} does not fit: its {listed}; change these settings, or name "
            "another start"
        )
    return check_arrays(folder, found.state_dict(), network.state_dict())


def check_arrays(
    folder: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return ``found``; raises SettingsError if names or shapes are not those ``expected``."""
    there = {name: tuple(array.shape) for name, array in found.items()}
    here = {name: tuple(array.shape) for name, array in expected.items()}
    odd = sorted(name for name in {**there, **here} if there.get(name) != here.get(name))
    if odd:
        shown = "; ".join(
            f"{name} is {there.get(name, 'missing')}, here {here.get(name, 'missing')}"
            for name in odd[:3]
        )
        raise SettingsError(
            f"model.start_from {folder} does not fit: {len(odd)} of {len(here)} arrays differ "
            f"({shown}); use the model settings that it was trained with, or name another start"
        )
    return dict(found)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return (theirs, ours) of what must be equal and is not, by the name of the setting."""
    found = {}
    for key, was in theirs.items():
        if key.startswith("_") or key == "dropout" or key not in ours:
            continue
        if _plain(was) != _plain(ours[key]):
            found[_SETTINGS.get(key, key)] = (_plain(was), _plain(ours[key]))
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _read_process(folder: Path) -> dict[str, Any]:
    path = folder / _SCHEDULER
    if not path.is_file():
        return {}
    return _process(read_json(path))


def _process(config: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: config[key] for key in _PROCESS if key in config}
    is_flow = str(config.get("_class_name", "")).startswith("FlowMatch")
    return {**known, "prediction_type": FLOW} if is_flow else known
