"""The reverse process: images from a trained network, each one decided by its own seed."""

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.noise import build_scheduler
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.images import to_uint8
from phoenix_pipeline.optimization.precision import autocast
from phoenix_pipeline.threads import LEAST_SHARE, side_by_side

# The cosine schedule has almost no signal at the last steps; the log-SNR starts here, as the
# authors of DPM-Solver++ (arXiv 2211.01095) advise for it.
_COSINE_LAMBDA_MIN = -5.1
# With eta = 1, float32 rounding makes 1 - alpha_bar - sigma^2 of DDIM negative, and its root NaN,
# where the cosine schedule has almost no signal.
_ETA_MAX = 1.0 - 1e-6
# Per core: 64 digits of 8x8 on two cores are slower divided, 250 are faster (docs/speed.md).
_LEAST_PIXELS = 6000


def check_sampling(sampling: SamplingConfig, noise: NoiseConfig) -> None:
    """Refuse settings that no image can be drawn with, before anything is trained.

    Raises:
        SettingsError: more steps than the forward process has, or a spacing that cannot make
            exactly as many different ones.
    """
    _prepare_scheduler(noise, sampling, sampling.num_steps)


def sample_images(
    unet: nn.Module,
    scheduler_config: NoiseConfig,
    config: SamplingConfig,
    image_shape: tuple[int, int, int],
    seeds: Sequence[int],
    device: torch.device | str,
    num_steps: int | None = None,
) -> Iterator[np.ndarray]:
    """Yield uint8 batches [B, C, H, W], B up to ``config.batch_size``, in the order of ``seeds``.

    The initial and the ancestral noise of image ``i`` come from a CPU generator seeded with
    ``seeds[i]``, so neither the batch size nor the other images change it. The network is switched
    to evaluation for each batch and back afterwards. On a CPU each of torch's threads takes a part
    of the batch.

    Args:
        unet: the network, on ``device``.
        scheduler_config: the forward process that it was trained with.
        config: sampler, steps, spacing and batch size.
        image_shape: (C, H, W).
        seeds: one per image.
        device: where the network is.
        num_steps: replaces ``config.num_steps``; None keeps it.

    Raises:
        SettingsError: at once, see :func:`check_sampling`.
        TrainingError: the network gives values that are not finite.
    """
    steps = config.num_steps if num_steps is None else num_steps
    scheduler = _prepare_scheduler(scheduler_config, config, steps)
    ancestral = config.sampler in ("ddpm", "ddim")

    def draw(chunk: Sequence[int]) -> np.ndarray:
        generators = [torch.Generator().manual_seed(int(seed)) for seed in chunk]
        options: dict[str, Any] = {"generator": generators} if ancestral else {}
        if config.sampler == "ddim":
            options["eta"] = min(config.eta, _ETA_MAX)
        noise = torch.stack([torch.randn(image_shape, generator=g) for g in generators])
        # Multistep samplers keep earlier predictions: each batch has a scheduler of its own.
        with autocast(torch.device(device), config):
            return _denoise(unet, copy.deepcopy(scheduler), noise.to(device), options)

    def batches() -> Iterator[np.ndarray]:
        least = max(LEAST_SHARE, _LEAST_PIXELS // (image_shape[-2] * image_shape[-1]))
        with side_by_side(draw, torch.device(device), least) as draw_batch:
            for start in range(0, len(seeds), config.batch_size):
                was_training = unet.training
                unet.eval()
                try:
                    batch = draw_batch(seeds[start : start + config.batch_size])
                finally:
                    unet.train(was_training)
                yield batch

    return batches()


@torch.inference_mode()
def _denoise(
    unet: nn.Module, scheduler: Any, noise: torch.Tensor, options: dict[str, Any]
) -> np.ndarray:
    """Return uint8 [B, C, H, W] from Gaussian ``noise`` of that shape."""
    x_t = noise * scheduler.init_noise_sigma
    # The scheduler's tables and its steps stay on the CPU, so that it never waits for a GPU.
    on_device = scheduler.timesteps.to(noise.device)
    for t, t_on_device in zip(scheduler.timesteps, on_device, strict=True):
        prediction = unet(x_t, t_on_device, return_dict=False)[0].float()
        x_t = scheduler.step(prediction, t, x_t, return_dict=False, **options)[0]
    if not bool(torch.isfinite(x_t).all()):
        raise TrainingError(
            "the network gave images that are not finite; its weights diverged: lower "
            "training.learning_rate or set training.max_grad_norm"
        )
    return to_uint8(x_t).cpu().numpy()


def _prepare_scheduler(noise: NoiseConfig, sampling: SamplingConfig, steps: int) -> Any:
    """Return diffusers' scheduler of ``sampling.sampler``, its ``steps`` timesteps checked."""
    if not 1 <= steps <= noise.num_train_timesteps:
        raise SettingsError(
            f"sampling.num_steps is {steps}, but the forward process has "
            f"{noise.num_train_timesteps} steps; set it to 1..{noise.num_train_timesteps} or raise "
            "model.noise.num_train_timesteps"
        )
    scheduler = _build_sampler(noise, sampling)
    _set_timesteps(scheduler, steps)
    visited = scheduler.timesteps.tolist()
    if len(visited) != steps or visited[-1] < 0 or any(a <= b for a, b in pairwise(visited)):
        raise SettingsError(
            f"sampling.num_steps={steps} with timestep_spacing={sampling.timestep_spacing} makes "
            f"{sampling.sampler} visit a timestep twice or one below 0; set sampling.num_steps "
            "lower or choose another sampling.timestep_spacing"
        )
    return scheduler


def _set_timesteps(scheduler: Any, steps: int) -> None:
    """Have ``scheduler`` visit ``steps`` timesteps."""
    import diffusers

    scheduler.set_timesteps(steps)
    visited = scheduler.timesteps.tolist()
    exact = len(visited) == steps and visited[-1] >= 0
    if isinstance(scheduler, diffusers.DPMSolverMultistepScheduler) and not exact:
        # With spacing "trailing" diffusers leaves out the steps that the clipped log-SNR forbids,
        # or rounds the last one to -1: spread all of them over the timesteps that are allowed.
        last = visited[0] + 1
        spread = [round(last * (steps - i) / steps) - 1 for i in range(steps)]
        scheduler.set_timesteps(timesteps=spread)


def _build_sampler(noise: NoiseConfig, sampling: SamplingConfig) -> Any:
    import diffusers

    options: dict[str, Any] = {"timestep_spacing": sampling.timestep_spacing}
    if sampling.sampler == "dpm_solver++":
        options["algorithm_type"] = "dpmsolver++"
        if noise.schedule == "cosine":
            options["lambda_min_clipped"] = _COSINE_LAMBDA_MIN
    schedulers = {
        "ddpm": diffusers.DDPMScheduler,
        "ddim": diffusers.DDIMScheduler,
        "dpm_solver++": diffusers.DPMSolverMultistepScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
    }
    trained_with: Any = build_scheduler(noise)
    return schedulers[sampling.sampler].from_config(trained_with.config, **options)
