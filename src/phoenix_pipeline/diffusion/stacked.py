"""Local training of several clients as one program, with their weights stacked and ``vmap``.

Small networks and batches leave a processor idle between operations. Clients of one federation have
networks of the same shape, so one step of all of them is one forward and one backward pass, with
grouped convolutions. Each client keeps its own stream of random numbers, optimizer and learning
rate: the result is that of one client after another, to the rounding of sums.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batched_attention import batched_attention
from phoenix_pipeline.diffusion.batches import Batch, draw_batch, stack_batches
from phoenix_pipeline.diffusion.columns import Columns
from phoenix_pipeline.diffusion.conditioning import Condition, RowsAtRest
from phoenix_pipeline.diffusion.dropout import set_dropout_generators
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.steps import build_optimizer
from phoenix_pipeline.diffusion.training import mean_loss
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.adam_state import adam_state, restore_adam_state
from phoenix_pipeline.optimization.compilation import compile_function, run_compiled
from phoenix_pipeline.optimization.corrections import Correction, corrections_of
from phoenix_pipeline.optimization.learning_rate import learning_rate_at
from phoenix_pipeline.optimization.precision import autocast
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, draw_batches


def why_not_stacked(config: TrainingConfig) -> str | None:
    """Return which setting needs one client after another; None where they can be stacked."""
    if config.dp_sgd.enabled:
        return "training.dp_sgd takes gradients image by image"
    if config.precision == "fp16":
        return "training.precision fp16 scales each client's loss by itself"
    return None


def train_stacked(
    unet: nn.Module,
    tasks: Sequence[ClientTask],
    schedule: NoiseSchedule,
    config: TrainingConfig,
    conditions: Sequence[Condition | None] | None = None,
) -> list[LocalResult | TrainingError]:
    """Train the weights of every task in place, all clients of a step at once.

    Args:
        unet: the network that all clients have; its own weights are not used or changed.
        tasks: each client's weights, images, work and moments, on one device.
        schedule: the forward process, on the same device.
        config: what :func:`why_not_stacked` lets pass.
        conditions: the classes of each task's images; None for an unconditional network.

    Returns:
        One entry per task: what :func:`~phoenix_pipeline.diffusion.training.train_locally` returns
        (``seconds`` are the client's share of the whole) or raises.
    """
    started = time.perf_counter()
    columns = Columns.of(unet, tasks[0].work.from_server)
    # Who has most steps comes first: those that are still at work are then the first rows.
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].work.steps)
    stack = torch.stack([columns.flatten(tasks[i].weights) for i in order])
    classes = conditions or [None] * len(tasks)
    rows = [
        _Row.of(tasks[i], classes[i], own, columns, config)
        for i, own in zip(order, stack, strict=True)
    ]
    with batched_attention(unet, stack.device):
        losses = _descend(unet, stack, rows, columns, schedule, config)
    per_step = (time.perf_counter() - started) / sum(task.work.steps for task in tasks)
    results: list[LocalResult | TrainingError] = [TrainingError("")] * len(tasks)
    for i, row, own in zip(order, rows, losses, strict=True):
        row.keep(columns)
        results[i] = row.result(own, per_step, config.batch_size)
    return results


@dataclass(frozen=True)
class _Row:
    """One client: its part of the stack as up to two leaves, and what moves them."""

    task: ClientTask
    condition: Condition | None
    leaves: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    corrections: Sequence[Correction]
    generator: torch.Generator
    batches: Iterator[Tensor]

    @classmethod
    def of(
        cls,
        task: ClientTask,
        condition: Condition | None,
        own: Tensor,
        columns: Columns,
        config: TrainingConfig,
    ) -> "_Row":
        """Return the client whose weights are ``own`` [P]."""
        leaves = {group: nn.Parameter(part) for group, part in columns.groups(own).items()}
        optimizer = build_optimizer(leaves.values(), config, own.device)
        if task.optimizer_state:
            restore_adam_state(
                optimizer, leaves.items(), columns.flatten_moments(task.optimizer_state)
            )
        generator = torch.Generator(device=own.device).manual_seed(task.work.seed)
        batches = draw_batches(len(task.images), config.batch_size, task.work.steps, generator)
        shared = {"shared": leaves["shared"]} if "shared" in leaves else {}
        return cls(
            task,
            condition,
            leaves,
            optimizer,
            corrections_of(shared, task.work, columns.flatten_shared),
            generator,
            batches,
        )

    def draw(self, schedule: NoiseSchedule, config: TrainingConfig) -> Batch:
        """Return the next batch."""
        indices = next(self.batches)
        condition = self.condition and self.condition.at(indices)
        return draw_batch(self.task.images[indices], schedule, config, condition, self.generator)

    def correct(self, gradient: Tensor, columns: Columns) -> None:
        """Take ``gradient`` [P] for this client's own and let the corrections change it."""
        for group, part in columns.groups(gradient).items():
            self.leaves[group].grad = part
        for correction in self.corrections:
            correction.correct_gradients()

    def step(self, step: int, config: TrainingConfig) -> None:
        """Move the weights."""
        rate = learning_rate_at(self.task.work.progress(step), config.learning_rate, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for correction in self.corrections:
            correction.after_step(rate)

    def keep(self, columns: Columns) -> None:
        """Write weights and moments to where the task has them."""
        own = columns.split(torch.cat([leaf.detach() for leaf in self.leaves.values()]))
        if at_rest := RowsAtRest.of(self.task.weights, self.condition):
            at_rest.restore(own)
        torch._foreach_copy_([self.task.weights[name] for name in own], list(own.values()))
        kept = self.task.optimizer_state
        if kept is not None:
            kept.clear()
            kept.update(columns.split_moments(adam_state(self.optimizer, self.leaves.items())))

    def result(
        self, losses: Tensor, seconds_per_step: float, batch_size: int
    ) -> LocalResult | TrainingError:
        """Return the means over the steps [most steps], or what went wrong."""
        steps = self.task.work.steps
        try:
            loss = mean_loss(losses[:steps])
        except TrainingError as error:
            return error
        return LocalResult(loss, steps * batch_size, steps * seconds_per_step)


def _descend(
    unet: nn.Module,
    stack: Tensor,
    rows: Sequence[_Row],
    columns: Columns,
    schedule: NoiseSchedule,
    config: TrainingConfig,
) -> Tensor:
    """Make the steps of all ``rows``; return their losses [C, most steps] on the CPU."""
    losses = torch.zeros(len(rows), rows[0].task.work.steps, device=stack.device)
    compiled = config.compile is True
    unet.train()
    set_dropout_generators(unet, [row.generator for row in rows])
    drawn: list[Batch] = []
    for step in range(losses.shape[1]):
        working = [row for row in rows if step < row.task.work.steps]
        new = [row.draw(schedule, config) for row in working]
        # Compiled code is for one number of rows: who is done comes along and is moved no more.
        drawn = new + drawn[len(new) :] if compiled else new
        batch = stack_batches(drawn)
        leaf = stack[: len(drawn)].detach().requires_grad_()
        take = partial(_losses_and_gradients, unet, columns, leaf, batch, config)
        each, gradients = run_compiled(take) if compiled else take()
        gradients = gradients[: len(working)]
        for row, own in zip(working, gradients, strict=True):
            row.correct(own, columns)
        if config.max_grad_norm is not None:
            # As torch.nn.utils.clip_grad_norm_ does for one client.
            norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
            gradients.mul_((config.max_grad_norm / (norms + 1e-6)).clamp_(max=1.0))
        for row in working:
            row.step(step, config)
        losses[: len(working), step] = each[: len(working)]
    set_dropout_generators(unet, ())
    return losses.cpu()


def _losses_and_gradients(
    unet: nn.Module, columns: Columns, leaf: Tensor, batch: Batch, config: TrainingConfig
) -> tuple[Tensor, Tensor]:
    """Return each client's loss [C] for its row of ``leaf`` [C, P], and their gradients [C, P]."""
    compute = _compiled_losses() if config.compile is True else _losses
    each = compute(unet, columns.views(leaf), batch, config)
    (gradients,) = torch.autograd.grad(each.sum(), leaf)
    return each.detach(), gradients


@cache
def _compiled_losses() -> Callable[..., Tensor]:
    return compile_function(_losses)


def _losses(
    unet: nn.Module, weights: dict[str, Tensor], batch: Batch, config: TrainingConfig
) -> Tensor:
    """Return each client's mean squared error [C] for ``weights`` [C, ...], x_t [C, B, ...]."""

    def predict(own: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        options = {"return_dict": False}
        prediction: Tensor = functional_call(unet, own, inputs, options)[0]
        return prediction

    with autocast(batch.x_t.device, config.precision):
        predicted = vmap(predict)(weights, *batch.inputs)
    squares = (predicted.float() - batch.target).square()
    if batch.weights is None:
        return squares.flatten(1).mean(1)
    return (batch.weights * squares.flatten(2).mean(2)).mean(1)
