"""One batch of the DDPM: noisy images, what is to be predicted of them, and what they show."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.conditioning import Condition
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.optimization.work import prepare_batch


class Batch(NamedTuple):
    """``x_t`` and ``target`` are [B, C, H, W], the timesteps ``t`` and ``labels`` int64 [B].

    ``labels`` is None for an unconditional network.
    """

    x_t: Tensor
    t: Tensor
    target: Tensor
    labels: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network is called with."""
        return inputs_of(self.x_t, self.t, self.labels)


def inputs_of(x_t: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
    """Return what a network is called with: labels only where it is conditional."""
    return (x_t, t) if labels is None else (x_t, t, labels)


def stack_batches(batches: Sequence[Batch]) -> Batch:
    """Return the batches of several clients as one, each part with a new first axis."""
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        torch.stack([batch.x_t for batch in batches]),
        torch.stack([batch.t for batch in batches]),
        torch.stack([batch.target for batch in batches]),
        torch.stack(labels) if labels else None,
    )


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield parts of ``size`` images; of no images, one part."""
    for start in range(0, max(1, len(batch.x_t)), size):
        at = slice(start, start + size)
        labels = None if batch.labels is None else batch.labels[at]
        yield Batch(batch.x_t[at], batch.t[at], batch.target[at], labels)


def draw_batch(
    images: Tensor,
    indices: Tensor,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
    generator: torch.Generator,
) -> Batch:
    """Return noisy images, timesteps, targets and classes of uint8 ``images`` at ``indices``."""
    x_0 = prepare_batch(images[indices], config, generator)
    t = torch.randint(schedule.num_timesteps, (len(x_0),), generator=generator, device=x_0.device)
    # randn_like takes no generator in torch 2.11.
    epsilon = torch.randn(x_0.shape, generator=generator, device=x_0.device)
    labels = None if condition is None else condition.draw(indices, generator)
    return Batch(schedule.diffuse(x_0, t, epsilon), t, schedule.target(x_0, t, epsilon), labels)
