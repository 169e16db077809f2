"""A family whose network descends one loss and draws in one pass: what a new one begins with.

Strategies, kept moments, precision, compiling, export and loading need nothing from it. DP-SGD is
not for it.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from phoenix_pipeline.config import ModelConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.families.family import Family

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from phoenix_pipeline.optimization.work import ClientTask, LocalResult


class OneLossFamily(Family):
    """To be written: ``build``, ``loss`` and ``draw``."""

    @abstractmethod
    def loss(
        self, network: "nn.Module", x_0: "Tensor", model: ModelConfig, generator: "torch.Generator"
    ) -> "Tensor":
        """Return the mean loss, a scalar, of images [B, C, H, W] in [-1, 1], on their device."""

    @abstractmethod
    def draw(
        self, network: "nn.Module", model: ModelConfig, generators: "Sequence[torch.Generator]"
    ) -> "Tensor":
        """Return images [B, C, H, W] in [-1, 1], each made with its own generator on the CPU."""

    def count_layers(self, model: ModelConfig, image_size: int) -> int:
        """Return 1: the network is looked at to know."""
        return 1

    def run_once(self, network: "nn.Module", channels: int, image_size: int) -> int:
        """Take the loss of one image of zeros."""
        import torch

        images = torch.zeros(1, channels, image_size, image_size)
        self.loss(network, images, ModelConfig(family=self.name), torch.Generator())
        return 1

    def train_locally(
        self,
        network: "nn.Module",
        task: "ClientTask",
        model: ModelConfig,
        training: TrainingConfig,
    ) -> "LocalResult":
        """Train in place; raises SettingsError for DP-SGD, TrainingError for an infinite loss."""
        from phoenix_pipeline.diffusion.steps import LossSteps
        from phoenix_pipeline.diffusion.training import descend
        from phoenix_pipeline.optimization.work import LocalResult, mean_loss, prepare_batch

        if training.dp_sgd.enabled:
            raise SettingsError(f"training.dp_sgd is not for model.family {self.name}")
        started, work, moments = time.perf_counter(), task.work, task.optimizer_state
        network.train()

        def draw_loss(
            indices: "Tensor", generator: "torch.Generator"
        ) -> "Sequence[Callable[[], Tensor]]":
            x_0 = prepare_batch(task.images[indices], training, generator)
            return [partial(self.loss, network, x_0, model, generator)]

        steps = LossSteps(network, draw_loss, task.images.device, work, training, moments)
        losses = descend(steps, dict(network.named_parameters()), work, training, task.images)
        if moments is not None:
            moments.clear()
            moments.update(steps.moments())
        seconds = time.perf_counter() - started
        return LocalResult(mean_loss(losses), work.steps * training.batch_size, seconds)

    def sample_images(
        self,
        network: "nn.Module",
        model: ModelConfig,
        sampling: SamplingConfig,
        image_shape: tuple[int, int, int],
        seeds: Sequence[int],
        device: "torch.device | str",
        labels: Sequence[int] | None = None,
    ) -> "Iterator[np.ndarray]":
        """Yield uint8 batches; raises TrainingError for values that are not finite."""
        import torch

        from phoenix_pipeline.images import to_uint8

        network.eval()
        for start in range(0, len(seeds), sampling.batch_size):
            chunk = seeds[start : start + sampling.batch_size]
            generators = [torch.Generator().manual_seed(int(seed)) for seed in chunk]
            with torch.inference_mode():
                images = self.draw(network, model, generators)
            if not bool(torch.isfinite(images).all()):
                raise TrainingError(
                    f"the {self.name} gave images that are not finite; its weights diverged: lower "
                    "training.learning_rate or set training.max_grad_norm"
                )
            yield to_uint8(images).cpu().numpy()
