"""What a step of local training does: gradients of a batch, then a move of the weights.

Between the two, and after them, a federation's strategies change gradients and weights
(``optimization/corrections.py``).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batches import Condition, draw_batch, split_batch
from phoenix_pipeline.diffusion.dp_sgd import set_private_gradients
from phoenix_pipeline.diffusion.dropout import set_dropout_generators
from phoenix_pipeline.diffusion.noise import Batch, NoiseSchedule
from phoenix_pipeline.optimization.adam_state import adam_state, restore_adam_state
from phoenix_pipeline.optimization.compilation import run_compiled
from phoenix_pipeline.optimization.precision import autocast, gradient_scaler
from phoenix_pipeline.optimization.work import LocalWork, expected_batch


class Steps(Protocol):
    """One client's steps in one round; ``generator`` is what all its random numbers come from."""

    generator: torch.Generator

    def set_gradients(self, indices: Tensor) -> Tensor:
        """Set the network's gradients for the images at ``indices``; return the loss, a scalar."""

    def move(self, learning_rate: float) -> None:
        """Clip the gradients and move the weights."""

    def moments(self) -> dict[str, Tensor]:
        """Return Adam's moments, named as in :func:`adam_state`; nobody else writes to them."""


# From the indices of a batch's images, what gives the parts of its mean loss, scalars that add up
# to it; the batch is drawn once, with random numbers of the generator.
DrawLoss = Callable[[Tensor, torch.Generator], Sequence[Callable[[], Tensor]]]


class LossSteps:
    """Down the gradient of a loss, operation by operation: any network, device and precision."""

    def __init__(
        self,
        network: nn.Module,
        draw_loss: DrawLoss,
        device: torch.device,
        work: LocalWork,
        config: TrainingConfig,
        moments: dict[str, Tensor] | None,
    ) -> None:
        self.generator = torch.Generator(device=device).manual_seed(work.seed)
        self._network, self._draw_loss, self._config = network, draw_loss, config
        self._weights = list(network.parameters())
        self._optimizer = build_optimizer(self._weights, config, device)
        self._scaler = gradient_scaler(device, config)
        if moments:
            restore_adam_state(self._optimizer, network.named_parameters(), moments)

    def set_gradients(self, indices: Tensor) -> Tensor:
        """Set gradients, which are scaled no more."""
        parts = self._draw_loss(indices, self.generator)
        descend = partial(backpropagate, self._weights, parts, self._config, self._scaler)
        loss = run_compiled(descend) if self._config.compile is True else descend()
        self._scaler.unscale_(self._optimizer)
        return loss

    def move(self, learning_rate: float) -> None:
        """Clip and move."""
        set_learning_rate(self._optimizer, learning_rate)
        clip(self._weights, self._config)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def moments(self) -> dict[str, Tensor]:
        """Return the optimizer's own, which ends here."""
        return adam_state(self._optimizer, self._network.named_parameters())


class EagerSteps(LossSteps):
    """Those of a diffusion model, with all settings; the arguments are ``train_locally``'s."""

    def __init__(
        self,
        unet: Any,
        images: Tensor,
        work: LocalWork,
        schedule: NoiseSchedule,
        config: TrainingConfig,
        condition: Condition | None,
        moments: dict[str, Tensor] | None,
    ) -> None:
        super().__init__(unet, self._draw_error, images.device, work, config, moments)
        self._images, self._work = images, work
        self._schedule, self._condition = schedule, condition
        set_dropout_generators(unet, [self.generator])
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()

    def set_gradients(self, indices: Tensor) -> Tensor:
        """Set gradients, which are scaled no more; with ``training.dp_sgd`` private ones."""
        if not self._config.dp_sgd.enabled:
            return super().set_gradients(indices)
        size = expected_batch(self._config, len(self._images))
        of_noise = None if self._work.secret_noise else self.generator
        multiplier, batch = self._work.noise_multiplier, self._draw(indices)
        return set_private_gradients(self._network, batch, self._config, multiplier, size, of_noise)

    def _draw(self, indices: Tensor) -> Batch:
        condition = self._condition and self._condition.at(indices)
        pixels = self._images[indices]
        return draw_batch(pixels, self._schedule, self._config, condition, self.generator)

    def _draw_error(
        self, indices: Tensor, generator: torch.Generator
    ) -> Sequence[Callable[[], Tensor]]:
        batch, size = self._draw(indices), self._config.micro_batch
        if size is None or size >= len(indices):
            return [partial(batch.error_of, self._network)]
        parts = split_batch(batch, size)
        return [partial(_share_of, self._network, part, len(indices)) for part in parts]


def _share_of(unet: nn.Module, part: Batch, size: int) -> Tensor:
    """Return what ``part`` adds to the mean error of a batch of ``size`` images."""
    return part.error_of(unet) * (len(part.t) / size)


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    config: TrainingConfig,
    device: torch.device,
    rate: Tensor | None = None,
) -> torch.optim.AdamW:
    """Return AdamW over ``parameters``, fused if possible; ``rate``: a recorded step's scalar."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate if rate is None else rate,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
        capturable=rate is not None,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Let the next step be of this size; a recorded one reads it from its place on the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def backpropagate(
    weights: Sequence[nn.Parameter],
    parts: Sequence[Callable[[], Tensor]],
    config: TrainingConfig,
    scaler: torch.amp.GradScaler,
) -> Tensor:
    """Return the loss, the sum of its ``parts``; ``weights`` get its scaled gradient."""
    for weight in weights:
        weight.grad = None
    losses = []
    for loss_of in parts:
        with autocast(weights[0].device, config.precision):
            loss = loss_of()
        scaler.scale(loss).backward()
        losses.append(loss.detach())
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def clip(weights: list[nn.Parameter], config: TrainingConfig) -> None:
    """Scale the gradients down to ``training.max_grad_norm``, if there is one."""
    if config.max_grad_norm is not None:
        nn.utils.clip_grad_norm_(weights, config.max_grad_norm, foreach=True)
