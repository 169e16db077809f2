"""Lower precision in the forward pass, as a group's ``precision`` asks."""

import torch

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.registry import look_up

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which networks run; it changes nothing for fp32."""
    dtype = look_up(_AUTOCAST, precision, "precision")
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def gradient_scaler(device: torch.device, config: TrainingConfig) -> torch.amp.GradScaler:
    """Return what keeps small gradients of fp16 from vanishing; idle for other types."""
    return torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
