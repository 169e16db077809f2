"""DP-SGD (arXiv 1607.00133): gradients clipped image by image, summed, and made noisy.

Opacus 1.6 is not used: its convolutions take wrong gradients of activations in NHWC layout, which
attention leaves behind in this U-Net.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batches import split_batch
from phoenix_pipeline.diffusion.noise import Batch
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.optimization.adam_state import laid_out_like
from phoenix_pipeline.optimization.gaussian_mechanism import GaussianMechanism, gaussian_mechanism
from phoenix_pipeline.optimization.precision import autocast

# Attention on the CPU goes image by image under vmap: measured, it costs nothing of note.
warnings.filterwarnings("ignore", message="There is a performance drop because")

# Gradients that are held at a time, for whole images: 256 MiB in fp32.
_GRADIENT_VALUES = 1 << 26


def per_image_gradients(
    unet: nn.Module, batch: Batch, config: TrainingConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Return each image's gradients by name [B, ...] and losses [B]; ``unet`` mixes no images."""

    def loss_of(
        parameters: Mapping[str, Tensor], weight: Tensor, target: Tensor, *inputs: Tensor
    ) -> Tensor:
        options, single = {"return_dict": False}, tuple(part[None] for part in inputs)
        with autocast(target.device, config.precision):
            predicted = functional_call(unet, dict(parameters), single, options)[0]
        return weight * nn.functional.mse_loss(predicted.float(), target[None])

    parameters = {name: value.detach() for name, value in unet.named_parameters()}
    weights = torch.ones_like(batch.t, dtype=torch.float32)
    of_images = weights if batch.weights is None else batch.weights, batch.target, *batch.inputs
    in_dims = (None, *[0] * len(of_images))
    take = vmap(grad_and_value(loss_of), in_dims=in_dims, randomness="different")
    gradients, losses = take(parameters, *of_images)
    return gradients, losses


def set_private_gradients(
    unet: nn.Module,
    batch: Batch,
    config: TrainingConfig,
    noise_multiplier: float | None,
    expected_batch: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Set ``unet``'s gradients to (sum of clipped gradients + noise) / ``expected_batch``.

    ``batch``: may be of no images. ``noise_multiplier``: standard deviation of the noise over the
    clipping norm. ``expected_batch``: expected images of a batch, whatever this one has.
    ``generator``: of the noise, on the network's device; None: secret noise. Returns the sum of the
    losses over ``expected_batch``, which is their mean on average.
    Raises SettingsError: no noise multiplier is given.
    """
    if noise_multiplier is None:
        raise SettingsError(
            "training.dp_sgd is enabled, but this training was given no noise multiplier; the "
            "federation solves it for each client"
        )
    mechanism = gaussian_mechanism(noise_multiplier * config.dp_sgd.clip_norm, generator)
    sums, loss = _clipped_sums(unet, batch, config, mechanism)
    for name, parameter in unet.named_parameters():
        released = mechanism.release(sums[name]) / expected_batch
        parameter.grad = laid_out_like(parameter, released)
    return loss / expected_batch


def _clipped_sums(
    unet: nn.Module,
    batch: Batch,
    config: TrainingConfig,
    mechanism: GaussianMechanism,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the sums over the batch of clipped gradients, by name, and of losses."""
    parameters = dict(unet.named_parameters())
    sums = {name: mechanism.zeros_like(value) for name, value in parameters.items()}
    loss = torch.zeros((), device=batch.x_t.device)
    chunk = max(1, _GRADIENT_VALUES // sum(value.numel() for value in parameters.values()))
    for part in split_batch(batch, chunk):
        if not len(part.x_t):
            continue
        gradients, losses = per_image_gradients(unet, part, config)
        scales = _clipping_scales(gradients, config.dp_sgd.clip_norm)
        for name, gradient in gradients.items():
            sums[name] += mechanism.weighted_sum(gradient, scales)
        loss += losses.sum()
    return sums, loss


def _clipping_scales(gradients: Mapping[str, Tensor], clip_norm: float) -> Tensor:
    squares = [g.flatten(1).square().sum(1, dtype=torch.float32) for g in gradients.values()]
    norms = torch.stack(squares).sum(0).sqrt()
    return clip_norm / norms.clamp_min(clip_norm)
