"""Training the label judge: augmentation, one-cycle schedule, the loop."""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import DataError, TrainingError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.feature_extractor import Advance
from phoenix_pipeline.metrics.judge_networks import JudgeNetwork
from phoenix_pipeline.metrics.label_judge import (
    LabelJudge,
    build_network,
    labels_of,
    measure_judge,
)
from phoenix_pipeline.optimization.cuda_graph import Launch, record
from phoenix_pipeline.optimization.precision import autocast
from phoenix_pipeline.seeding import torch_generator

LARGEST_SHIFT = 1 / 8
_GREY = 128


def augment(images: Tensor, horizontal_flip: bool, generator: torch.Generator) -> Tensor:
    """Shift uint8 [N, C, H, W] by up to an eighth, edges repeated; mirror half if asked."""
    count, _, height, width = images.shape
    reach_y, reach_x = max(1, int(height * LARGEST_SHIFT)), max(1, int(width * LARGEST_SHIFT))
    shift_y = torch.randint(-reach_y, reach_y + 1, (count, 1), generator=generator)
    shift_x = torch.randint(-reach_x, reach_x + 1, (count, 1), generator=generator)
    rows = (torch.arange(height) + shift_y).clamp(0, height - 1)
    columns = (torch.arange(width) + shift_x).clamp(0, width - 1)
    if horizontal_flip:
        mirrored = torch.rand((count, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows = rows[:, None, :, None].to(images.device)
    columns = columns[:, None, None, :].to(images.device)
    every_image = torch.arange(count, device=images.device)[:, None, None, None]
    every_channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[every_image, every_channel, rows, columns]


def cut_out(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Grey out a square of side ``share`` x H in each image of uint8 [N, C, H, W].

    Cutout (arXiv 1708.04552): its centre may be any pixel, so that a part of it may lie outside.
    ``generator`` lives on the CPU.
    """
    count, _, height, width = images.shape
    side = max(1, round(share * height))
    inside = []
    for size in (height, width):
        centre = torch.randint(0, size, (count, 1), generator=generator)
        place = torch.arange(size) - (centre - side // 2)
        inside.append(((place >= 0) & (place < side)).to(images.device))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, _GREY)


def train_classifier(
    train: ImageSet,
    test: ImageSet,
    config: ClassifierConfig,
    device: torch.device,
    *,
    progress: Advance | None = None,
) -> LabelJudge:
    """Train the label judge on ``train`` and measure it on ``test``.

    Everything random comes from ``config.seed``: all runs with these images share one judge.
    ``progress`` is called with 1 after each of ``config.epochs`` epochs.
    Raises SettingsError: a split has no labels or no images, or there are fewer than two classes.
    Raises DataError: the splits have different classes.
    Raises TrainingError: the loss is not finite.
    """
    labels = labels_of(train, "training")
    labels_of(test, "test")
    if train.class_names != test.class_names:
        raise DataError(
            f"The label judge got training classes {train.class_names} and test classes "
            f"{test.class_names}; allowed are the same names in the same order"
        )
    network = build_network(train, config, device)
    fit(network, train.images, labels, config, device=device, progress=progress)
    network.eval().requires_grad_(False)
    return measure_judge(network, train, test, config, device)


def fit(
    network: JudgeNetwork,
    images: np.ndarray,
    labels: np.ndarray,
    config: ClassifierConfig,
    *,
    device: torch.device,
    progress: Advance | None = None,
) -> None:
    """Train in place (AdamW, one cycle, arXiv 1708.07120); raises TrainingError."""
    data = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    targets = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
    generator = torch_generator(config.seed, "label_judge_training")
    batches = -(-len(data) // config.batch_size)
    optimizer, schedule = _one_cycle(network, config, config.epochs * batches)
    auto = "bf16" if device.type == "cuda" else "fp32"
    precision = auto if config.precision == "auto" else config.precision
    gradients = _Gradients(network, data, targets, precision)
    network.train()
    for epoch in range(config.epochs):
        loss_sum = torch.zeros((), device=device)
        # Even parts: a last batch of one image would give batch normalisation no variance.
        order = torch.randperm(len(data), generator=generator).to(device)
        for batch in order.tensor_split(batches):
            view = augment(data[batch], config.horizontal_flip, generator)
            if config.cutout > 0:
                view = cut_out(view, config.cutout, generator)
            loss_sum += gradients.set(view, targets[batch])
            optimizer.step()
            schedule.step()
        if not torch.isfinite(loss_sum):
            raise TrainingError(
                f"The label judge's loss is not finite in epoch {epoch + 1}; lower "
                f"evaluation.classifier.learning_rate (now {config.learning_rate})"
            )
        if progress is not None:
            progress(1)


class _Gradients:
    """Sets the gradients of a batch; on a GPU by one launch, recorded for each size of batch."""

    def __init__(
        self, network: JudgeNetwork, images: Tensor, targets: Tensor, precision: str
    ) -> None:
        self._network, self._precision = network, precision
        self._images, self._targets = images, targets
        self._loss = torch.zeros((), device=images.device)
        self._steps: dict[int, tuple[Tensor, Tensor, Launch]] = {}
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def set(self, view: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, which the next call writes over."""
        if len(view) not in self._steps:
            self._steps[len(view)] = self._record(len(view))
        own_view, own_targets, launch = self._steps[len(view)]
        own_view.copy_(view)
        own_targets.copy_(targets)
        launch()
        return self._loss

    def _record(self, size: int) -> tuple[Tensor, Tensor, Launch]:
        view = self._images.new_zeros((size, *self._images.shape[1:]))
        targets = self._targets.new_zeros(size)
        # What is tried while it is recorded would count in the batch statistics.
        buffers = {name: buffer.clone() for name, buffer in self._network.named_buffers()}
        compute = partial(self._compute, view, targets)
        launch = record(compute, (), view.device, "a step of the label judge")
        for name, buffer in self._network.named_buffers():
            buffer.copy_(buffers[name])
        return view, targets, launch

    def _compute(self, view: Tensor, targets: Tensor) -> None:
        for parameter in self._network.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        with autocast(view.device, self._precision):
            loss = functional.cross_entropy(self._network(view), targets)
        loss.backward()
        self._loss.copy_(loss.detach())


def _one_cycle(
    network: JudgeNetwork, config: ClassifierConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=next(network.parameters()).device.type == "cuda" or None,
    )
    # torch divides by the number of steps in the last phase: one step is not enough.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(2, steps)
    )
    return optimizer, schedule
