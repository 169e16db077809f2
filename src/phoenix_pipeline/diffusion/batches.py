"""One batch of the DDPM: noisy images, what is to be predicted of them, and what they show."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.conditioning import Condition
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.optimization.work import prepare_batch


class Batch(NamedTuple):
    """``x_t`` and ``target`` are [B, C, H, W], the timesteps ``t`` and ``labels`` int64 [B].

    ``labels`` is None for an unconditional network, ``weights`` [B] of the images' losses where all
    count alike.
    """

    x_t: Tensor
    t: Tensor
    target: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network is called with."""
        return inputs_of(self.x_t, self.t, self.labels)


def inputs_of(x_t: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
    """Return what a network is called with: labels only where it is conditional."""
    return (x_t, t) if labels is None else (x_t, t, labels)


def mean_error(predicted: Tensor, batch: Batch) -> Tensor:
    """Return the mean squared error of ``predicted`` [B, C, H, W], weighted where weights are."""
    if batch.weights is None:
        return nn.functional.mse_loss(predicted, batch.target)
    return (batch.weights * (predicted - batch.target).square().flatten(1).mean(1)).mean()


def stack_batches(batches: Sequence[Batch]) -> Batch:
    """Return the batches of several clients as one, each part with a new first axis."""
    return Batch(
        torch.stack([batch.x_t for batch in batches]),
        torch.stack([batch.t for batch in batches]),
        torch.stack([batch.target for batch in batches]),
        _stacked([batch.labels for batch in batches]),
        _stacked([batch.weights for batch in batches]),
    )


def _stacked(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.stack(present) if present else None


def assign_noise(x_0: Tensor, epsilon: Tensor) -> Tensor:
    """Return int64 [B]: which noise each image gets, so that the distances add up to the least.

    Immiscible diffusion (Li et al., arXiv 2406.12303), the linear assignment of its algorithm 1.
    The noise of the batch stays the same set of Gaussian draws.
    """
    from scipy.optimize import linear_sum_assignment

    distances = torch.cdist(x_0.flatten(1), epsilon.flatten(1))
    _, columns = linear_sum_assignment(distances.cpu().numpy())
    return torch.from_numpy(columns).to(x_0.device)


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield parts of ``size`` images; of no images, one part."""
    for start in range(0, max(1, len(batch.x_t)), size):
        at = slice(start, start + size)
        labels = None if batch.labels is None else batch.labels[at]
        weights = None if batch.weights is None else batch.weights[at]
        yield Batch(batch.x_t[at], batch.t[at], batch.target[at], labels, weights)


def draw_batch(
    pixels: Tensor,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
    generator: torch.Generator,
) -> Batch:
    """Return noisy images, timesteps, targets and classes of uint8 ``pixels`` [B, C, H, W].

    ``condition``: the classes of these images, for a conditional network.
    """
    x_0 = prepare_batch(pixels, config, generator)
    t = schedule.draw_timesteps(len(x_0), config.timestep_distribution, generator)
    # randn_like takes no generator in torch 2.11.
    epsilon = torch.randn(x_0.shape, generator=generator, device=x_0.device)
    if config.noise_assignment == "immiscible":
        epsilon = epsilon[assign_noise(x_0, epsilon)]
    weights = None
    if config.loss_weighting == "min_snr":
        weights = schedule.min_snr_weights(t, config.min_snr_gamma)
    labels = None if condition is None else condition.draw(generator)
    noisy, target = schedule.diffuse(x_0, t, epsilon), schedule.target(x_0, t, epsilon)
    return Batch(noisy, t, target, labels, weights)
