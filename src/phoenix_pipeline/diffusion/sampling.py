"""The reverse process: images from a trained network, each one decided by its own seed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.batches import null_class
from phoenix_pipeline.diffusion.samplers import SAMPLERS, TakeStep
from phoenix_pipeline.diffusion.schedulers import prepare_scheduler
from phoenix_pipeline.diffusion.unet_inference import Predict, predict_at
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.images import to_uint8
from phoenix_pipeline.optimization.compilation import is_compiled
from phoenix_pipeline.optimization.precision import autocast
from phoenix_pipeline.threads import LEAST_SHARE, side_by_side


@dataclass(frozen=True)
class Guidance:
    """How a batch of B images is predicted: ``f_null + scale (f_class - f_null)``.

    ``labels``: what the network is called with, int64 [B], or [2 B] where it is asked twice, the
    second half being the null class.
    """

    labels: Tensor
    scale: float

    @classmethod
    def of(cls, unet: nn.Module, classes: Tensor, scale: float) -> "Guidance":
        """Return what draws images of ``classes`` [B]; with scale 1 or 0 one prediction will do."""
        if scale == 1.0:
            return cls(classes, scale)
        null = torch.full_like(classes, null_class(unet))
        return cls(null if scale == 0.0 else torch.cat([classes, null]), scale)

    def guided(self, predict: Predict) -> Predict:
        """Return a prediction for x_t [B, C, H, W] from one for as many images as ``labels``."""
        if self.scale in (0.0, 1.0):
            return predict

        def predict_guided(x_t: Tensor, index: int) -> Tensor:
            of_class, of_any = predict(torch.cat([x_t, x_t]), index).float().chunk(2)
            return torch.lerp(of_any, of_class, self.scale)

        return predict_guided


Decode = Callable[[torch.Tensor], torch.Tensor]
# Per core: 64 digits of 8x8 on two cores are slower divided, 250 are faster (docs/speed.md).
_LEAST_PIXELS = 6000


def check_sampling(sampling: SamplingConfig, noise: NoiseConfig) -> None:
    """Raise SettingsError for what no image can be drawn with; see ``prepare_scheduler``."""
    prepare_scheduler(noise, sampling, sampling.num_steps)


def sample_images(
    unet: nn.Module,
    noise: NoiseConfig,
    config: SamplingConfig,
    image_shape: tuple[int, int, int],
    seeds: Sequence[int],
    device: torch.device | str,
    labels: Sequence[int] | None = None,
    decode: Decode | None = None,
) -> Iterator[np.ndarray]:
    """Yield uint8 batches [B, C, H, W], B up to ``config.batch_size``, in the order of ``seeds``.

    Image ``i`` depends on ``seeds[i]`` alone, which seeds a CPU generator, and on ``labels[i]``,
    the class that it is to show. ``unet`` was trained on the forward process ``noise``.
    ``image_shape``: (C, H, W); of latents, which ``decode`` makes images in [-1, 1] of.
    Raises SettingsError: at once, see :func:`check_sampling`.
    Raises TrainingError: the network gives values that are not finite.
    """
    scheduler = prepare_scheduler(noise, config, config.num_steps, clips=decode is None)
    new_steps = SAMPLERS[config.sampler].new_steps(scheduler, config)

    def draw(chunk: Sequence[tuple[int, int]]) -> np.ndarray:
        generators = [torch.Generator().manual_seed(int(seed)) for seed, _ in chunk]
        x_t = torch.stack([torch.randn(image_shape, generator=g) for g in generators]).to(device)
        guidance = None
        if labels is not None:
            classes = torch.tensor([label for _, label in chunk], device=x_t.device)
            guidance = Guidance.of(unet, classes, config.guidance_scale)
        with autocast(x_t.device, config.precision):
            x_0 = _denoise(unet, scheduler.timesteps, x_t, new_steps(generators), guidance)
        return to_uint8(decode(x_0) if decode else x_0).cpu().numpy()

    items = [(seed, 0 if labels is None else labels[i]) for i, seed in enumerate(seeds)]
    least = max(LEAST_SHARE, _LEAST_PIXELS // (image_shape[-2] * image_shape[-1]))
    return _by_batches(unet, items, config.batch_size, draw, torch.device(device), least)


def _by_batches(
    unet: nn.Module,
    items: Sequence[tuple[int, int]],
    batch_size: int,
    draw: Callable[[Sequence[tuple[int, int]]], np.ndarray],
    device: torch.device,
    least: int,
) -> Iterator[np.ndarray]:
    """Yield what ``draw`` makes of each batch, ``least`` items or more in each of torch's threads.

    The network is switched to evaluation for each batch and back afterwards.
    """
    with side_by_side(draw, device, least) as draw_batch:
        # Compiled code is for one size: a shorter last batch would be compiled anew.
        whole = min(batch_size, len(items)) if is_compiled(unet) else 0
        for start in range(0, len(items), batch_size):
            chunk = items[start : start + batch_size]
            was_training = unet.training
            unet.eval()
            try:
                batch = draw_batch([*chunk, *[chunk[-1]] * (whole - len(chunk))])[: len(chunk)]
            finally:
                unet.train(was_training)
            yield batch


@torch.inference_mode()
def _denoise(
    unet: nn.Module,
    timesteps: torch.Tensor,
    noise: torch.Tensor,
    take_step: TakeStep,
    guidance: Guidance | None,
) -> torch.Tensor:
    """Return x_0 [B, C, H, W] from Gaussian ``noise`` of that shape, which is written over."""
    kind = noise.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else noise.dtype
    labels = guidance.labels if guidance else None
    predict = predict_at(unet, timesteps.to(noise.device), noise.shape[-1], dtype, labels)
    if guidance:
        predict = guidance.guided(predict)
    x_t = noise
    for index in range(len(timesteps)):
        x_t = take_step(x_t, predict(x_t, index).float(), index)
    if not bool(torch.isfinite(x_t).all()):
        raise TrainingError(
            "the network gave images that are not finite; its weights diverged: lower "
            "training.learning_rate or set training.max_grad_norm"
        )
    return x_t
