"""What a step of local training does: gradients of a batch, then a move of the weights.

Between the two, and after them, a federation's strategies change gradients and weights
(``optimization/corrections.py``).
"""

from collections.abc import Iterable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batches import Batch, draw_batch, mean_error
from phoenix_pipeline.diffusion.conditioning import Condition
from phoenix_pipeline.diffusion.dp_sgd import set_private_gradients
from phoenix_pipeline.diffusion.dropout import set_dropout_generators
from phoenix_pipeline.diffusion.noise import NoiseSchedule
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


class EagerSteps:
    """Operation by operation, on any device and with all settings."""

    def __init__(
        self,
        unet: nn.Module,
        images: Tensor,
        work: LocalWork,
        schedule: NoiseSchedule,
        config: TrainingConfig,
        condition: Condition | None,
        moments: dict[str, Tensor] | None,
    ) -> None:
        """Begin with ``moments``, if any; the arguments are those of ``train_locally``."""
        device = images.device
        self.generator = torch.Generator(device=device).manual_seed(work.seed)
        self._unet, self._images, self._work = unet, images, work
        self._schedule, self._config, self._condition = schedule, config, condition
        self._weights = list(unet.parameters())
        self._optimizer = build_optimizer(self._weights, config, device)
        self._scaler = gradient_scaler(device, config)
        if moments:
            restore_adam_state(self._optimizer, unet.named_parameters(), moments)
        set_dropout_generators(unet, [self.generator])

    def set_gradients(self, indices: Tensor) -> Tensor:
        """Set gradients, which are scaled no more; with ``training.dp_sgd`` private ones."""
        config, condition = self._config, self._condition and self._condition.at(indices)
        pixels = self._images[indices]
        batch = draw_batch(pixels, self._schedule, config, condition, self.generator)
        self._optimizer.zero_grad(set_to_none=True)
        if config.dp_sgd.enabled:
            return self._set_private_gradients(batch)
        descend = partial(backpropagate, self._unet, batch, config, self._scaler)
        loss = run_compiled(descend) if config.compile is True else descend()
        self._scaler.unscale_(self._optimizer)
        return loss

    def _set_private_gradients(self, batch: Batch) -> Tensor:
        size = expected_batch(self._config, len(self._images))
        of_noise = None if self._work.secret_noise else self.generator
        multiplier = self._work.noise_multiplier
        return set_private_gradients(self._unet, batch, self._config, multiplier, size, of_noise)

    def move(self, learning_rate: float) -> None:
        """Clip and move."""
        set_learning_rate(self._optimizer, learning_rate)
        clip(self._weights, self._config)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def moments(self) -> dict[str, Tensor]:
        """Return the optimizer's own, which ends here."""
        return adam_state(self._optimizer, self._unet.named_parameters())


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    config: TrainingConfig,
    device: torch.device,
    rate: Tensor | None = None,
) -> torch.optim.AdamW:
    """Return AdamW over ``parameters``, as one kernel where the device has it.

    ``rate``: a scalar on a GPU that a recorded step reads its learning rate from.
    """
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
    unet: nn.Module, batch: Batch, config: TrainingConfig, scaler: torch.amp.GradScaler
) -> Tensor:
    """Return the mean squared error of the prediction; parameters get its scaled gradient."""
    for parameter in unet.parameters():
        parameter.grad = None
    with autocast(batch.x_t.device, config.precision):
        predicted = unet(*batch.inputs, return_dict=False)[0]
    loss = mean_error(predicted.float(), batch)
    scaler.scale(loss).backward()
    return loss.detach()


def clip(weights: list[nn.Parameter], config: TrainingConfig) -> None:
    """Scale the gradients down to ``training.max_grad_norm``, if there is one."""
    if config.max_grad_norm is not None:
        nn.utils.clip_grad_norm_(weights, config.max_grad_norm, foreach=True)
