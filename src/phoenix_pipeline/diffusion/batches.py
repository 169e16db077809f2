"""One batch of the DDPM: noisy images, what is to be predicted of them, and what they show.

A conditional U-Net has an embedding with a row per class and one more, the *null class*, that
stands for "any". A label is replaced by it now and then in training, so that one network learns the
images of a class and all images (classifier-free guidance, Ho and Salimans, arXiv 2207.12598).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import ModelConfig, TrainingConfig
from phoenix_pipeline.diffusion.noise import Batch, Draws, NoiseSchedule
from phoenix_pipeline.optimization.class_rows import rows_not_held
from phoenix_pipeline.optimization.work import prepare_batch


def null_class(unet: nn.Module) -> int:
    """Return the row of the null class: the last of the embedding of a conditional network."""
    # Its array need not be a parameter.
    embedding: Any = unet.class_embedding
    return int(embedding.num_embeddings) - 1


@dataclass(frozen=True)
class Condition:
    """``labels``: int64 [N], one per image of a client, in 0..``null``-1; ``null``: number of
    classes, which is the row of the null class; ``dropout``: how often it replaces a label.
    """

    labels: Tensor
    null: int
    dropout: float

    def at(self, indices: Tensor) -> "Condition":
        """Return the condition of the images at ``indices`` [B]."""
        return replace(self, labels=self.labels[indices])

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the labels, some replaced by the null class."""
        if not self.dropout:
            return self.labels
        drawn = torch.rand(len(self.labels), generator=generator, device=self.labels.device)
        return torch.where(drawn < self.dropout, self.null, self.labels)

    def rows_not_held(self) -> Tensor:
        """Return the rows of the classes that none of the images is of, int64."""
        return rows_not_held(self.labels, self.null)


def condition_of(network: nn.Module, model: ModelConfig, labels: Tensor | None) -> Condition | None:
    """Return the classes of a client's images; None for an unconditional network."""
    if model.conditioning == "none" or labels is None:
        return None
    return Condition(labels, null_class(network), model.label_dropout)


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


def draw_batch(
    pixels: Tensor,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
    generator: torch.Generator,
) -> Batch:
    """Return a batch of uint8 ``pixels``; the arguments are those of :func:`draw`."""
    return schedule.batch(draw(pixels, schedule, config, condition, generator), config)


def stacked_batch(draws: Sequence[Draws], schedule: NoiseSchedule, config: TrainingConfig) -> Batch:
    """Return the batches of several clients as one, each part with a new first axis."""
    labels = [own.labels for own in draws if own.labels is not None]
    together = Draws(
        torch.cat([own.x_0 for own in draws]),
        torch.cat([own.t for own in draws]),
        torch.cat([own.epsilon for own in draws]),
        torch.cat(labels) if labels else None,
    )
    x_t, t, target, classes, weights = schedule.batch(together, config)

    def by_client(part: Tensor) -> Tensor:
        return part.unflatten(0, (len(draws), -1))

    return Batch(
        by_client(x_t),
        by_client(t),
        by_client(target),
        None if classes is None else by_client(classes),
        None if weights is None else by_client(weights),
    )
