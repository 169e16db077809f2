"""A U-Net in the layout of diffusers: written and read."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from phoenix_pipeline.checkpoints import METADATA_FILE, atomic_path, load_diffusers
from phoenix_pipeline.config import NoiseConfig
from phoenix_pipeline.diffusion.lora import (
    adapter_arrays,
    has_adapters,
    merge_adapters,
    peft_settings,
)
from phoenix_pipeline.diffusion.noise import build_scheduler
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.json_files import write_json

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
