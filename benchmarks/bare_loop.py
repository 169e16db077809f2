"""The tightest training loop of the same U-Net that PyTorch allows: what training can cost at best.

No federation, no records, no checks: uint8 images on the device, batches drawn there, fused AdamW,
no synchronisation.
"""

import torch
from torch import Tensor, nn

from benchmarks.presets import Preset
from phoenix_pipeline.diffusion.noise import NoiseSchedule

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train_bare(unet: nn.Module, images: Tensor, preset: Preset, tables: NoiseSchedule) -> Tensor:
    """Make ``preset.steps`` steps with the same batch, precision, clipping; return the losses."""
    device, config = images.device, preset.training
    batch, dtype = config.batch_size, _AUTOCAST.get(config.precision)
    weights = list(unet.parameters())
    optimizer = torch.optim.AdamW(
        weights, config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    losses = torch.empty(preset.steps, device=device)
    unet.train()
    for step in range(preset.steps):
        chosen = torch.randint(len(images), (batch,), device=device)
        x_0 = images[chosen].float().div_(127.5).sub_(1.0)
        if config.channels_last:
            x_0 = x_0.contiguous(memory_format=torch.channels_last)
        t = torch.randint(tables.num_timesteps, (batch,), device=device)
        epsilon = torch.randn_like(x_0)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            predicted = unet(tables.diffuse(x_0, t, epsilon), t, return_dict=False)[0]
        loss = nn.functional.mse_loss(predicted.float(), tables.target(x_0, t, epsilon))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(weights, config.max_grad_norm, foreach=True)
        optimizer.step()
        losses[step] = loss.detach()
    return losses
