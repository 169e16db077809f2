"""The DCGAN's side of :class:`phoenix_pipeline.families.Family`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import ModelConfig, SamplingConfig, TrainingConfig
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.gan import export as _export
from phoenix_pipeline.gan import sampling as _sampling
from phoenix_pipeline.gan import training as _training
from phoenix_pipeline.gan.dcgan import Dcgan, build_dcgan, check_image_size
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, LocalWork


def check(model: ModelConfig, sampling: SamplingConfig, channels: int, image_size: int) -> None:
    """Refuse image sizes that no DCGAN makes; every sampler setting but the batch size is unused.

    Raises:
        SettingsError: names a possible side.
    """
    check_image_size(image_size)


def build(
    model: ModelConfig, channels: int, image_size: int, seed: int, num_classes: int = 0
) -> nn.Module:
    """Return generator and discriminator; their weights depend on ``seed`` alone."""
    return build_dcgan(model.dcgan, channels, image_size, seed)


def count_layers(model: ModelConfig, image_size: int) -> int:
    """Count the convolutions of both networks."""
    return 2 * model.dcgan.layers_per_resolution * image_size.bit_length()


def run_once(network: nn.Module, channels: int, image_size: int) -> int:
    """Make two images and judge two; BatchNorm takes no single one."""
    gan = cast(Dcgan, network)
    gan.discriminator(gan(torch.zeros(2, gan.latent_dim, 1, 1)))
    gan.discriminator(torch.zeros(2, channels, image_size, image_size))
    return 2


def train_locally(
    network: nn.Module,
    images: Tensor,
    work: LocalWork,
    model: ModelConfig,
    training: TrainingConfig,
    optimizer_state: dict[str, Tensor] | None = None,
    labels: Tensor | None = None,
) -> LocalResult:
    """Train in place; see :func:`phoenix_pipeline.gan.training.train_locally`."""
    return _training.train_locally(
        cast(Dcgan, network), images, work, model.dcgan, training, optimizer_state
    )


def why_not_stacked(training: TrainingConfig) -> str | None:
    """Refuse: BatchNorm keeps statistics of each client's own batches."""
    return "a DCGAN has BatchNorm, whose statistics are one network's"


def train_stacked(
    network: nn.Module, tasks: Sequence[ClientTask], model: ModelConfig, training: TrainingConfig
) -> list[LocalResult | TrainingError]:
    """Refuse; raises SettingsError with the reason of :func:`why_not_stacked`."""
    raise SettingsError(f"clients cannot be stacked: {why_not_stacked(training)}")


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
    """Yield uint8 batches; see :func:`phoenix_pipeline.gan.sampling.sample_images`.

    The generator takes one step, so ``num_steps`` is unused.

    Raises:
        SettingsError: at once, if the network makes images of another shape.
    """
    gan = cast(Dcgan, network)
    made = (gan.channels, gan.image_size, gan.image_size)
    if made != image_shape:
        raise SettingsError(
            f"images of shape {image_shape} were asked of a generator that makes {made}; set "
            "images.channels and images.image_size as they were in training"
        )
    return _sampling.sample_images(gan, sampling.batch_size, seeds, device)


def export(
    folder: Path, network: nn.Module, model: ModelConfig, metadata: Mapping[str, Any]
) -> None:
    """Write both networks, their config and ``metadata`` as one folder."""
    _export.export_networks(folder, cast(Dcgan, network), model, metadata)


def load_start(folder: Path, network: nn.Module, model: ModelConfig) -> dict[str, Tensor]:
    """Refuse: only diffusion models start from given weights."""
    raise SettingsError(
        "model.start_from is for diffusion models, but model.family is dcgan; set "
        "model.start_from: null for this arm"
    )


def load(folder: Path) -> nn.Module:
    """Return both networks of an exported folder, on the CPU, in evaluation mode."""
    return _export.load_networks(folder)
