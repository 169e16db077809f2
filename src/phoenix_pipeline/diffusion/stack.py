"""The networks of several clients at fixed places in memory, and what moves them.

Row ``c`` of every array is client ``c``'s. Nothing here is made anew for a step, so a GPU records
the steps once (``optimization/cuda_graph.py``) and serves all rounds with them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from weakref import ref

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batched_unet import BatchedUNet, PredictStacked, batched_attention
from phoenix_pipeline.diffusion.batches import Condition, draw, stacked_batch
from phoenix_pipeline.diffusion.columns import Columns
from phoenix_pipeline.diffusion.dropout import set_dropout_generators
from phoenix_pipeline.diffusion.graphed import why_not_graphed
from phoenix_pipeline.diffusion.noise import Batch, NoiseSchedule
from phoenix_pipeline.diffusion.stacked_unet import StackedUNet
from phoenix_pipeline.diffusion.steps import build_optimizer, clip, set_learning_rate
from phoenix_pipeline.diffusion.unet_layers import is_known
from phoenix_pipeline.optimization.adam_state import FixedMoments
from phoenix_pipeline.optimization.compilation import compile_function, run_compiled
from phoenix_pipeline.optimization.cuda_graph import record
from phoenix_pipeline.optimization.precision import autocast


class Row:
    """One client's part: up to two leaves of its row, their optimizer, its batch."""

    def __init__(
        self,
        weights: Tensor,
        gradient: Tensor,
        columns: Columns,
        pixels: Tensor,
        condition: Condition | None,
        config: TrainingConfig,
    ) -> None:
        """Take a row of the stack: ``weights`` and ``gradient`` [P], uint8 ``pixels`` [B, ...]."""
        device = weights.device
        self.weights, self.pixels, self.condition = weights, pixels, condition
        self.generator = torch.Generator(device=device)
        self.leaves = {g: nn.Parameter(part) for g, part in columns.groups(weights).items()}
        self._config = config
        for group, part in columns.groups(gradient).items():
            self.leaves[group].grad = part
        rate = torch.zeros((), device=device) if _records(device) else None
        self.optimizer = build_optimizer(self.leaves.values(), config, device, rate)
        self.moments = FixedMoments(self.optimizer, list(self.leaves), list(self.leaves.values()))
        self._move: Callable[[], object] = self._clip_and_move

    def record(self) -> None:
        """Let later moves be launches of a CUDA graph, if the device has such."""
        self._move = record(self._clip_and_move, (), self.weights.device, "an optimizer step")

    def move(self, learning_rate: float) -> None:
        """Clip the gradient and move the weights."""
        set_learning_rate(self.optimizer, learning_rate)
        self._move()

    def _clip_and_move(self) -> None:
        clip(list(self.leaves.values()), self._config)
        self.optimizer.step()


class Stack:
    """``rows`` of clients, and the gradients of all of them at once."""

    def __init__(
        self,
        unet: nn.Module,
        columns: Columns,
        count: int,
        images: Tensor,
        schedule: NoiseSchedule,
        config: TrainingConfig,
        condition: Condition | None,
    ) -> None:
        """Make room for ``count`` clients with images and classes like these."""
        device, batch = images.device, config.batch_size
        self._schedule, self._config, self._columns = schedule, config, columns
        self._weights = torch.zeros(count, columns.size, device=device)
        self._gradients = torch.zeros_like(self._weights)
        self._losses = torch.zeros(count, device=device)
        pixels = images.new_zeros((count, batch, *images.shape[1:]))
        classes: list[Condition | None] = [None] * count
        if condition:
            labels = condition.labels.new_zeros(count, batch)
            classes = [Condition(own, condition.null, condition.dropout) for own in labels]
        self.rows = [
            Row(weights, gradient, columns, own, condition, config)
            for weights, gradient, own, condition in zip(
                self._weights, self._gradients, pixels, classes, strict=True
            )
        ]
        # A reference to the network would keep it, and with it the graphs, for ever.
        self._unet = ref(unet)
        self._stacked_unet = StackedUNet(unet) if is_known(unet) else None
        self._set: Callable[[], object] | None = None
        if _records(device) and not why_not_graphed(config):
            self._record(unet)

    def _record(self, unet: nn.Module) -> None:
        compute = partial(self._compute, len(self.rows))
        generators = [row.generator for row in self.rows]
        with self.at_work(unet):
            launch = record(compute, generators, self._weights.device, "a step of all clients")
        if launch is not compute:
            self._set = launch
            for row in self.rows:
                row.record()

    @contextmanager
    def at_work(self, unet: nn.Module) -> Iterator[None]:
        """Let ``unet``, the network of this stack, train its rows for the block."""
        unet.train()
        set_dropout_generators(unet, [row.generator for row in self.rows])
        try:
            with nullcontext() if self._stacked_unet else batched_attention(unet):
                yield
        finally:
            set_dropout_generators(unet, ())

    def set_gradients(self, working: int) -> Tensor:
        """Set the gradients; return the losses of all rows, of which ``working`` count."""
        if self._set is not None:
            self._set()
        else:
            compiled = self._config.compile is True
            self._compute(len(self.rows) if compiled else working)
        return self._losses

    def _compute(self, count: int) -> None:
        rows, config, columns = self.rows[:count], self._config, self._columns
        draws = [
            draw(row.pixels, self._schedule, config, row.condition, row.generator) for row in rows
        ]
        batch = stacked_batch(draws, self._schedule, config)
        leaf = self._weights[:count].detach().requires_grad_()
        take = partial(_losses_and_gradients, self._predict(), columns, leaf, batch, config)
        losses, gradients = run_compiled(take) if config.compile is True else take()
        self._losses[:count] = losses
        self._gradients[:count] = gradients

    def _predict(self) -> PredictStacked:
        if self._stacked_unet is not None:
            return self._stacked_unet
        unet = self._unet()
        if unet is None:
            raise RuntimeError("the network of this stack is gone")
        return BatchedUNet(unet)


def _records(device: torch.device) -> bool:
    return device.type == "cuda"


def _losses_and_gradients(
    predict: PredictStacked, columns: Columns, leaf: Tensor, batch: Batch, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    compute = _compiled_losses() if config.compile is True else _losses
    each = compute(predict, columns.views(leaf), batch, config)
    (gradients,) = torch.autograd.grad(each.sum(), leaf)
    return each.detach(), gradients


@cache
def _compiled_losses() -> Callable[..., Tensor]:
    return compile_function(_losses)


def _losses(
    predict: PredictStacked, weights: dict[str, Tensor], batch: Batch, config: TrainingConfig
) -> Tensor:
    """Return each client's mean squared error [C] for ``weights`` [C, ...], x_t [C, B, ...]."""
    with autocast(batch.x_t.device, config.precision):
        predicted = predict(weights, *batch.inputs)
    squares = (predicted.float() - batch.target).square()
    if batch.weights is None:
        return squares.flatten(1).mean(1)
    return (batch.weights * squares.flatten(2).mean(2)).mean(1)
