"""Steps of local training as launches of two CUDA graphs: one sets gradients, one moves weights.

Everything that they touch lies at a fixed place, so they are recorded once for a network and serve
all clients whose weights it takes, in all rounds.
"""

from collections.abc import Sequence
from functools import partial
from weakref import ref

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batches import Condition, draw_batch
from phoenix_pipeline.diffusion.dropout import set_dropout_generators
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.steps import (
    backpropagate,
    build_optimizer,
    clip,
    set_learning_rate,
)
from phoenix_pipeline.optimization.adam_state import FixedMoments
from phoenix_pipeline.optimization.compilation import run_compiled
from phoenix_pipeline.optimization.cuda_graph import KeptByNetwork, Launch, record
from phoenix_pipeline.optimization.precision import gradient_scaler


def why_not_graphed(config: TrainingConfig) -> str | None:
    """Return which setting needs values from the device within a step; None where none does."""
    if config.dp_sgd.enabled:
        return "training.dp_sgd has batches of different sizes"
    if config.precision == "fp16":
        return "training.precision fp16 looks for gradients that are not finite"
    if config.micro_batch is not None or config.gradient_checkpointing:
        return "training.micro_batch and training.gradient_checkpointing save memory"
    if config.noise_assignment == "immiscible":
        return "training.noise_assignment immiscible is decided on the CPU"
    return None


class GraphedSteps:
    """The steps of one network; :meth:`begin` makes them one client's."""

    def __init__(
        self,
        unet: nn.Module,
        images: Tensor,
        schedule: NoiseSchedule,
        config: TrainingConfig,
        condition: Condition | None,
    ) -> None:
        device, size = images.device, config.batch_size
        self.generator = torch.Generator(device=device)
        self._images, self._classes = images, condition
        self._pixels = images.new_zeros((size, *images.shape[1:]))
        self._condition = condition and Condition(
            condition.labels.new_zeros(size), condition.null, condition.dropout
        )
        self._names = [name for name, _ in unet.named_parameters()]
        self._weights = list(unet.parameters())
        rate = torch.zeros((), device=device) if device.type == "cuda" else None
        self._optimizer = build_optimizer(self._weights, config, device, rate)
        self._moments = FixedMoments(self._optimizer, self._names, self._weights)
        self._loss = torch.zeros((), device=device)
        self._gradients: Sequence[Tensor] = ()
        self._set, self._move = self._record(unet, schedule, config, device)

    def _record(
        self,
        unet: nn.Module,
        schedule: NoiseSchedule,
        config: TrainingConfig,
        device: torch.device,
    ) -> tuple[Launch, Launch]:
        before = [weight.detach().clone() for weight in self._weights]
        # A reference to the network would keep it, and with it the graphs, for ever.
        compute = partial(self._compute_gradients, ref(unet), schedule, config)
        unet.train()
        set_dropout_generators(unet, [self.generator])
        set_gradients = record(compute, [self.generator], device, "a training step")
        move: Launch = partial(self._compute_move, config)
        if set_gradients is not compute:
            # Where the first graph writes them, the second reads them.
            self._gradients = [weight.grad for weight in self._weights if weight.grad is not None]
            move = record(move, (), device, "an optimizer step")
            torch._foreach_copy_([weight.detach() for weight in self._weights], before)
        return set_gradients, move

    def _compute_gradients(
        self, unet: "ref[nn.Module]", schedule: NoiseSchedule, config: TrainingConfig
    ) -> None:
        network = unet()
        if network is None:
            raise RuntimeError("the network of these steps is gone")
        batch = draw_batch(self._pixels, schedule, config, self._condition, self.generator)
        scaler = gradient_scaler(self._pixels.device, config)
        loss_of = partial(batch.error_of, network)
        descend = partial(backpropagate, self._weights, [loss_of], config, scaler)
        self._loss.copy_(run_compiled(descend) if config.compile is True else descend())

    def _compute_move(self, config: TrainingConfig) -> None:
        clip(self._weights, config)
        self._optimizer.step()

    def begin(
        self,
        images: Tensor,
        condition: Condition | None,
        moments: dict[str, Tensor] | None,
        seed: int,
    ) -> None:
        """Take a client's images, classes, moments and random numbers."""
        self._images, self._classes = images, condition
        self._moments.set(moments or {})
        self.generator.manual_seed(seed)
        for weight, gradient in zip(self._weights, self._gradients, strict=False):
            weight.grad = gradient

    def set_gradients(self, indices: Tensor) -> Tensor:
        """Set gradients; the loss is written over by the next call."""
        torch.index_select(self._images, 0, indices, out=self._pixels)
        if self._condition and self._classes:
            torch.index_select(self._classes.labels, 0, indices, out=self._condition.labels)
        self._set()
        return self._loss

    def move(self, learning_rate: float) -> None:
        """Clip and move."""
        set_learning_rate(self._optimizer, learning_rate)
        self._move()

    def moments(self) -> dict[str, Tensor]:
        """Return copies."""
        return self._moments.get()


_KEPT = KeptByNetwork[GraphedSteps]()


def graphed_steps(
    unet: nn.Module,
    images: Tensor,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
) -> GraphedSteps:
    """Return the steps of ``unet``, recorded at the first call with these settings."""
    classes = (condition.null, condition.dropout) if condition else None
    key = (images.shape[1:], id(schedule), config, classes)
    make = partial(GraphedSteps, unet, images, schedule, config, condition)
    return _KEPT.get(unet, key, make)
