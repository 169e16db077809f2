"""A U-Net that was trained before, as the start of another training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from phoenix_pipeline.config import NoiseConfig
from phoenix_pipeline.diffusion.export import load_unet
from phoenix_pipeline.diffusion.noise import FLOW, build_scheduler
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.json_files import read_json

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
