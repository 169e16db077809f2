"""A small autoencoder from scratch: for those who have no trained one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import AutoencoderConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.images import to_model_range, to_uint8
from phoenix_pipeline.latents.autoencoder import Autoencoder, wrap
from phoenix_pipeline.latents.space import space_of
from phoenix_pipeline.seeding import derive_seed, torch_generator

_MOST_FOR_THE_SCALE = 2048
_WEIGHT_DECAY = 1e-4


def train_autoencoder(
    images: np.ndarray,
    config: AutoencoderConfig,
    seed: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> Autoencoder:
    """Return an autoencoder of uint8 [N, C, H, W] with unit latents; raises TrainingError."""
    network = _build(config, images.shape[1], seed).to(device)
    # A copy has the usual strides, also along a single channel: torch chooses kernels by them.
    pixels = torch.from_numpy(images.copy()).to(device)
    generator = torch_generator(seed, "autoencoder")
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    network.train()
    for step in range(config.steps):
        rows = torch.randint(len(pixels), (config.batch_size,), generator=generator)
        loss = _loss(network, to_model_range(pixels[rows.to(device)]), config, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if not bool(torch.isfinite(loss.detach())):
            raise TrainingError(
                f"the autoencoder's loss is not finite at step {step + 1}; lower "
                f"autoencoder.learning_rate (now {config.learning_rate:g})"
            )
        if progress is not None:
            progress(1)
    return _scaled(network, pixels[:_MOST_FOR_THE_SCALE])


def reconstruction_psnr(autoencoder: Autoencoder, images: Tensor) -> float:
    """Return the mean PSNR in dB of uint8 ``images`` [N, C, H, W] after encoding and decoding."""
    made = to_uint8(autoencoder.decode(autoencoder.encode(images)))
    errors = (made.float() - images.float()).square().flatten(1).mean(dim=1)
    # An error of a hundredth of a level: what is the same counts as 88 dB.
    return float((10.0 * torch.log10(255.0**2 / errors.clamp_min(1e-4))).mean())


def _build(config: AutoencoderConfig, channels: int, seed: int) -> Any:
    from diffusers import AutoencoderKL

    levels = len(config.block_out_channels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "autoencoder"))
        return AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_num_groups,
            mid_block_add_attention=False,
        )


def _loss(network: Any, x: Tensor, config: AutoencoderConfig, generator: torch.Generator) -> Tensor:
    """Return the mean absolute error of ``x`` decoded from a draw of its posterior, and the KL."""
    posterior = network.encode(x).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(x.device)
    made = network.decode(posterior.mean + posterior.std * noise).sample
    divergence = posterior.kl().mean() / posterior.mean[0].numel()
    error: Tensor = nn.functional.l1_loss(made, x) + config.kl_weight * divergence
    return error


def _scaled(network: Any, pixels: Tensor) -> Autoencoder:
    """Return ``network``, whose configuration makes the latents of ``pixels`` of unit deviation."""
    network.register_to_config(scaling_factor=1.0, shift_factor=None)
    deviation = float(wrap(network, space_of(network.config)).encode(pixels).std())
    network.register_to_config(scaling_factor=1.0 / deviation)
    return wrap(network.cpu(), space_of(network.config))
