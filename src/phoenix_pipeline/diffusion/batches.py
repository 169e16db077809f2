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
    """[B, C, H, W] images, int64 [B] times and labels, ``weights`` [B] of losses; None: no such."""

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


class Draws(NamedTuple):
    """What is random in a batch: images ``x_0`` [B, C, H, W] that may be mirrored, timesteps ``t``
    [B], noise ``epsilon`` of the images' shape, and ``labels`` [B] of a conditional network.
    """

    x_0: Tensor
    t: Tensor
    epsilon: Tensor
    labels: Tensor | None


def draw(
    pixels: Tensor,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
    generator: torch.Generator,
) -> Draws:
    """Draw all that is random for uint8 ``pixels`` [B, C, H, W] of classes ``condition``."""
    x_0 = prepare_batch(pixels, config, generator)
    t = schedule.draw_timesteps(len(x_0), config.timestep_distribution, generator)
    # randn_like takes no generator in torch 2.11.
    epsilon = torch.randn(x_0.shape, generator=generator, device=x_0.device)
    if config.noise_assignment == "immiscible":
        epsilon = epsilon[assign_noise(x_0, epsilon)]
    labels = None if condition is None else condition.draw(generator)
    return Draws(x_0, t, epsilon, labels)


def batch_of(draws: Draws, schedule: NoiseSchedule, config: TrainingConfig) -> Batch:
    """Return noisy images, timesteps, targets and classes."""
    x_0, t, epsilon, labels = draws
    weights = None
    if config.loss_weighting == "min_snr":
        weights = schedule.min_snr_weights(t, config.min_snr_gamma)
    noisy, target = schedule.diffuse(x_0, t, epsilon), schedule.target(x_0, t, epsilon)
    return Batch(noisy, t, target, labels, weights)


def draw_batch(
    pixels: Tensor,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
    generator: torch.Generator,
) -> Batch:
    """Return a batch of uint8 ``pixels``; the arguments are those of :func:`draw`."""
    return batch_of(draw(pixels, schedule, config, condition, generator), schedule, config)


def stacked_batch(draws: Sequence[Draws], schedule: NoiseSchedule, config: TrainingConfig) -> Batch:
    """Return the batches of several clients as one, each part with a new first axis."""
    labels = [own.labels for own in draws if own.labels is not None]
    together = Draws(
        torch.cat([own.x_0 for own in draws]),
        torch.cat([own.t for own in draws]),
        torch.cat([own.epsilon for own in draws]),
        torch.cat(labels) if labels else None,
    )
    x_t, t, target, classes, weights = batch_of(together, schedule, config)

    def by_client(part: Tensor) -> Tensor:
        return part.unflatten(0, (len(draws), -1))

    return Batch(
        by_client(x_t),
        by_client(t),
        by_client(target),
        None if classes is None else by_client(classes),
        None if weights is None else by_client(weights),
    )
