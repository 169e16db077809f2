"""The diffusion model's side of :class:`phoenix_pipeline.families.Family`."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import ModelConfig, NoiseConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.diffusion import export as _export
from phoenix_pipeline.diffusion import sampling as _sampling
from phoenix_pipeline.diffusion import stacked as _stacked
from phoenix_pipeline.diffusion import start as _start
from phoenix_pipeline.diffusion import training as _training
from phoenix_pipeline.diffusion.conditioning import Condition, null_class
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, LocalWork


def check(model: ModelConfig, sampling: SamplingConfig, channels: int, image_size: int) -> None:
    """Refuse what no image can be drawn with, before anything is trained."""
    _sampling.check_sampling(sampling, model.noise)
    build(model, channels, image_size, seed=0)


def build(
    model: ModelConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
) -> nn.Module:
    """Return the U-Net; its weights depend on ``seed`` alone."""
    return build_unet(model.unet, channels, image_size, seed, num_classes)


def count_layers(model: ModelConfig, image_size: int) -> int:
    """Count the residual blocks on both sides of every level."""
    return 2 * (model.unet.layers_per_block + 1) * len(model.unet.block_out_channels)


def run_once(network: nn.Module, channels: int, image_size: int) -> int:
    """Run the U-Net on one image of zeros."""
    images, t = torch.zeros(1, channels, image_size, image_size), torch.zeros(1, dtype=torch.long)
    network(images, t, class_labels=None if network.class_embedding is None else t)
    return 1


def train_locally(
    network: nn.Module,
    images: Tensor,
    work: LocalWork,
    model: ModelConfig,
    training: TrainingConfig,
    optimizer_state: dict[str, Tensor] | None = None,
    labels: Tensor | None = None,
) -> LocalResult:
    """Train in place; see :func:`phoenix_pipeline.diffusion.training.train_locally`."""
    schedule = _forward_process(model.noise, images.device)
    condition = _condition(network, model, labels)
    return _training.train_locally(
        network, images, work, schedule, training, optimizer_state, condition
    )


def why_not_stacked(training: TrainingConfig) -> str | None:
    """See :func:`phoenix_pipeline.diffusion.stacked.why_not_stacked`."""
    return _stacked.why_not_stacked(training)


def train_stacked(
    network: nn.Module, tasks: Sequence[ClientTask], model: ModelConfig, training: TrainingConfig
) -> list[LocalResult | TrainingError]:
    """Train several clients; see :func:`phoenix_pipeline.diffusion.stacked.train_stacked`."""
    schedule = _forward_process(model.noise, tasks[0].images.device)
    conditions = [_condition(network, model, task.labels) for task in tasks]
    return _stacked.train_stacked(network, tasks, schedule, training, conditions)


def sample_images(
    network: nn.Module,
    model: ModelConfig,
    sampling: SamplingConfig,
    image_shape: tuple[int, int, int],
    seeds: Sequence[int],
    device: torch.device | str,
    num_steps: int | None = None,
    labels: Sequence[int] | None = None,
) -> Iterator[np.ndarray]:
    """Yield uint8 batches; see :func:`phoenix_pipeline.diffusion.sampling.sample_images`."""
    return _sampling.sample_images(
        network, model.noise, sampling, image_shape, seeds, device, num_steps, labels
    )


def export(
    folder: Path, network: nn.Module, model: ModelConfig, metadata: Mapping[str, Any]
) -> None:
    """Write diffusers' folder layout."""
    _export.export_pipeline(folder, network, model.noise, metadata)


def load(folder: Path) -> nn.Module:
    """Return the U-Net of an exported folder, on the CPU, in evaluation mode."""
    return _export.load_unet(folder)


def _condition(network: nn.Module, model: ModelConfig, labels: Tensor | None) -> Condition | None:
    """Return the classes of a client's images; None for an unconditional network."""
    if model.conditioning == "none" or labels is None:
        return None
    return Condition(labels, null_class(network), model.label_dropout)


def load_start(folder: Path, network: nn.Module, model: ModelConfig) -> dict[str, Tensor]:
    """Return weights to start from; see :func:`phoenix_pipeline.diffusion.start.load_start`."""
    return _start.load_start(folder, network, model.noise)


@lru_cache(maxsize=8)
def _forward_process(noise: NoiseConfig, device: torch.device) -> NoiseSchedule:
    """Return the tables of the forward process, made once and not for every client and round."""
    return NoiseSchedule.from_config(noise, device)
