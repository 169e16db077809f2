"""Local training of several clients as one program, with their weights stacked.

Small networks and batches leave a processor idle between operations. Clients of one federation have
networks of the same shape, so one step of all of them is one forward and one backward pass, with
grouped convolutions. Each client keeps its own stream of random numbers, optimizer and learning
rate: the result is that of one client after another, to the rounding of sums.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batches import Condition
from phoenix_pipeline.diffusion.columns import Columns
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.stack import Row, Stack
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.class_rows import RowsAtRest
from phoenix_pipeline.optimization.corrections import Correction, corrections_of
from phoenix_pipeline.optimization.cuda_graph import KeptByNetwork
from phoenix_pipeline.optimization.schedules import learning_rate_at
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, draw_batches, mean_loss


def why_not_stacked(config: TrainingConfig) -> str | None:
    """Return which setting needs one client after another; None where they can be stacked."""
    if config.dp_sgd.enabled:
        return "training.dp_sgd takes gradients image by image"
    if config.micro_batch is not None or config.gradient_checkpointing:
        return "training.micro_batch and training.gradient_checkpointing save memory"
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

    ``unet``: the network that all clients have; its own weights are not used or changed.
    ``conditions``: the classes of each task's images; None for an unconditional network. Returns
    one entry per task: what :func:`~phoenix_pipeline.diffusion.training.train_locally` returns
    (``seconds`` are the client's share of the whole) or raises.
    """
    started = time.perf_counter()
    columns = Columns.of(unet, tasks[0].work.from_server)
    # Who has most steps comes first: those that are still at work are then the first rows.
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].work.steps)
    classes = conditions or [None] * len(tasks)
    stack = _stack_of(unet, columns, tasks, schedule, config, classes[0])
    clients = [
        _Client.of(tasks[i], classes[i], row, columns, config)
        for i, row in zip(order, stack.rows, strict=True)
    ]
    losses = _descend(unet, stack, clients, config)
    per_step = (time.perf_counter() - started) / sum(task.work.steps for task in tasks)
    results: list[LocalResult | TrainingError] = [TrainingError("")] * len(tasks)
    for i, client, own in zip(order, clients, losses, strict=True):
        client.keep(columns)
        results[i] = client.result(own, per_step, config.batch_size)
    return results


# By network; only on a GPU, where recording takes longer than a round.
_KEPT = KeptByNetwork[Stack]()


def _stack_of(
    unet: nn.Module,
    columns: Columns,
    tasks: Sequence[ClientTask],
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
) -> Stack:
    """Return room for ``tasks``; on a GPU that of the last round, if it had as many."""
    images, count = tasks[0].images, len(tasks)
    make = partial(Stack, unet, columns, count, images, schedule, config, condition)
    if images.device.type != "cuda":
        return make()
    classes = (condition.null, condition.dropout) if condition else None
    key = (columns, count, images.shape[1:], id(schedule), config, classes)
    return _KEPT.get(unet, key, make)


@dataclass(frozen=True)
class _Client:
    """What one client trains in its row of the stack."""

    task: ClientTask
    condition: Condition | None
    row: Row
    corrections: Sequence[Correction]
    batches: Iterator[Tensor]

    @classmethod
    def of(
        cls,
        task: ClientTask,
        condition: Condition | None,
        row: Row,
        columns: Columns,
        config: TrainingConfig,
    ) -> "_Client":
        """Write the client's weights and moments into ``row``."""
        row.weights.copy_(columns.flatten(task.weights))
        row.moments.set(columns.flatten_moments(task.optimizer_state or {}))
        row.generator.manual_seed(task.work.seed)
        batches = draw_batches(len(task.images), config.batch_size, task.work.steps, row.generator)
        shared = {"shared": row.leaves["shared"]} if "shared" in row.leaves else {}
        corrections = corrections_of(shared, task.work, columns.flatten_shared)
        return cls(task, condition, row, corrections, batches)

    def take_batch(self) -> None:
        """Write the images and classes of the next batch into the row."""
        indices = next(self.batches)
        torch.index_select(self.task.images, 0, indices, out=self.row.pixels)
        if self.condition and self.row.condition:
            torch.index_select(self.condition.labels, 0, indices, out=self.row.condition.labels)

    def move(self, step: int, config: TrainingConfig) -> None:
        """Correct the gradient, move the weights, correct these."""
        rate = learning_rate_at(self.task.work.progress(step), config.learning_rate, config)
        for correction in self.corrections:
            correction.correct_gradients()
        self.row.move(rate)
        for correction in self.corrections:
            correction.after_step(rate)

    def keep(self, columns: Columns) -> None:
        """Write weights and moments to where the task has them."""
        own = columns.split(self.row.weights.clone())
        if self.condition:
            RowsAtRest.of(self.task.weights, self.condition.rows_not_held()).restore(own)
        torch._foreach_copy_([self.task.weights[name] for name in own], list(own.values()))
        kept = self.task.optimizer_state
        if kept is not None:
            kept.clear()
            kept.update(columns.split_moments(self.row.moments.get()))

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
    unet: nn.Module, stack: Stack, clients: Sequence[_Client], config: TrainingConfig
) -> Tensor:
    """Make the steps of all ``clients``; return their losses [C, most steps] on the CPU."""
    losses = torch.zeros(
        len(clients), clients[0].task.work.steps, device=stack.rows[0].weights.device
    )
    with stack.at_work(unet):
        for step in range(losses.shape[1]):
            working = [client for client in clients if step < client.task.work.steps]
            for client in working:
                client.take_batch()
            losses[:, step] = stack.set_gradients(len(working))
            for client in working:
                client.move(step, config)
    return losses.cpu()
