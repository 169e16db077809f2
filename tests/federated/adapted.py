"""A tiny start, and the settings of a federation that trains adapters on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.diffusion.export import export_pipeline
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.federated.records import ClientSettings
from tests.federated.tiny import UNET, make_images, settings

LORA = {"rank": 2, "target_modules": ["conv1", "conv2"]}


def make_base(folder: Path, seed: int) -> Path:
    export_pipeline(folder, build_unet(UNET, 1, 8, seed), settings().model.noise, {})
    return folder


def told(
    base: Path,
    layers: tuple[str, ...] = (),
    lora: Mapping[str, Any] | None = None,
    **training: Any,
) -> ClientSettings:
    """Return what clients are told, with the digest of what is in ``base``."""
    given = arm(base, training=training, lora=lora or {})
    own = ArmModel.of(make_images(), given, RunConfig(seed=5, device="cpu")).client_settings()
    return own.model_copy(
        update={"personal_layers": layers, "training": settings(**training).training}
    )


def arm(base: Path, **groups: Any) -> ArmSettings:
    lora = {**LORA, **groups.pop("lora", {})}
    model = {"unet": UNET, "start_from": str(base), "lora": lora}
    groups.pop("training", None)
    return ArmSettings(model=model, sampling={"num_steps": 2}, **groups)
