"""One client's share of a round, and the order in which it visits its images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.images import to_model_range
from phoenix_pipeline.optimization.discrete_gaussian import draw_uniform

if TYPE_CHECKING:
    from phoenix_pipeline.optimization.corrections import BindCorrection


@dataclass(frozen=True)
class LocalWork:
    """What one client trains in one round.

    ``progress_start`` and ``progress_end`` are fractions of the whole run, in [0, 1], between which
    the learning rate moves. ``from_server`` names the parameters that start from the global weights
    of this round: corrections change these, no others, and none where there is no round.
    ``noise_multiplier`` is that of ``training.dp_sgd``, solved for this client; None without it.
    With ``secret_noise`` its noise and its batches follow no seed.
    ``corrections``: what the run's strategies change in each step (``strategies/``).
    """

    steps: int
    progress_start: float
    progress_end: float
    seed: int
    from_server: frozenset[str] = frozenset()
    noise_multiplier: float | None = None
    corrections: "tuple[BindCorrection, ...]" = ()
    secret_noise: bool = False

    def progress(self, step: int) -> float:
        """Return the run's progress at ``step`` (0-based) of this round."""
        return self.progress_start + (self.progress_end - self.progress_start) * step / self.steps


@dataclass(frozen=True)
class LocalResult:
    """What local training reports: means over the round, and how much was trained."""

    loss: float
    images_trained: int
    seconds: float


def mean_loss(losses: Tensor) -> float:
    """Return the mean of ``losses`` [steps]; the only synchronisation with the device."""
    values = losses.cpu()
    finite = torch.isfinite(values)
    if not finite.all():
        step = int((~finite).nonzero()[0])
        raise TrainingError(
            f"the loss became {values[step].item()} at step {step + 1} of {len(values)}; lower "
            "training.learning_rate or set training.max_grad_norm"
        )
    return float(values.mean())


@dataclass(frozen=True)
class ClientTask:
    """What one client trains on: uint8 ``images`` [N, C, H, W], or latents (:func:`prepare_batch`).

    ``optimizer_state`` holds Adam's moments, which are replaced by the new ones; None: they start
    anew and are dropped. ``labels``: int64 [N], which a conditional model needs and others do not
    read. ``weights``: of one client of several that train as one program, trained in place; a
    client that trains alone trains those of its network.
    """

    images: Tensor
    work: LocalWork
    optimizer_state: dict[str, Tensor] | None = None
    labels: Tensor | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def expected_batch(config: TrainingConfig, num_images: int) -> int:
    """Return the images of a step; DP-SGD takes so many on average, each at most once."""
    return min(config.batch_size, num_images) if config.dp_sgd.enabled else config.batch_size


def prepare_batch(batch: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Return ``batch`` as the model sees it, float32 [B, C, H, W], mirrored and laid out as asked.

    ``batch``: uint8 [B, C, H, W], which is brought to [-1, 1]; or float32, which are latents: as
    they are, or with ``horizontal_flip`` [B, 2, C, H, W], the second one of the mirrored image.
    """
    images = to_model_range(batch) if batch.dtype == torch.uint8 else batch
    if config.horizontal_flip:
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
        plain, turned = images.unbind(1) if images.ndim == 5 else (images, images.flip(-1))
        images = torch.where(mirrored, turned, plain)
    if config.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return images


def sampling_rate(batch_size: int, num_images: int) -> float:
    """Return the probability of each image in a Poisson batch of expected size ``batch_size``."""
    return min(1.0, batch_size / num_images)


def draw_poisson_batches(
    num_images: int,
    batch_size: int,
    steps: int,
    generator: torch.Generator,
    *,
    secret: bool = False,
) -> Iterator[Tensor]:
    """Yield ``steps`` index tensors, of varying length and maybe empty.

    Each image is in each batch with the same probability, whatever else is. ``secret``: which ones
    they are follows from no seed; indices then lie on the generator's device all the same.
    """
    rate = sampling_rate(batch_size, num_images)
    device = generator.device
    for _ in range(steps):
        # float64: the steps of float32 would change small rates.
        if secret:
            drawn = torch.from_numpy(draw_uniform(num_images)).to(device)
        else:
            drawn = torch.rand(num_images, generator=generator, device=device, dtype=torch.float64)
        yield (drawn < rate).nonzero().flatten()


def draw_batches(
    num_images: int, batch_size: int, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield ``steps`` index tensors [batch_size], visiting all images before any comes again.

    The order is reshuffled for each pass; a batch may span two passes, so that every step has the
    same shape. All indices are drawn on the generator's device without synchronising with it.
    """
    passes = -(-steps * batch_size // num_images)
    device = generator.device
    order = torch.cat(
        [torch.randperm(num_images, generator=generator, device=device) for _ in range(passes)]
    )
    yield from order[: steps * batch_size].view(steps, batch_size)
