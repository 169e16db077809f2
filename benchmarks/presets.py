"""The settings that are measured, read from ``conf``, and images of their shape."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Options
from phoenix_pipeline.config import ModelConfig, TrainingConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.families.by_image_size import settle_model, settle_training
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader
from phoenix_pipeline.seeding import numpy_generator
from phoenix_pipeline.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Preset:
    """A network with its training; ``steps`` is one client's share of a round."""

    name: str
    model: ModelConfig
    training: TrainingConfig
    channels: int
    image_size: int
    steps: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.image_size, self.image_size

    def network(self, device: str, seed: int = 0) -> nn.Module:
        """Return the U-Net, laid out as the settings ask; not compiled."""
        unet = build_unet(self.model.unet, self.channels, self.image_size, seed).to(device)
        if self.training.channels_last:
            unet.to(memory_format=torch.channels_last)
        return unet

    def images(self, count: int) -> Tensor:
        """Return uint8 [count, C, H, W] noise: values do not matter to speed."""
        generator = numpy_generator(0, "benchmark_images")
        pixels = generator.integers(0, 256, (count, *self.image_shape), dtype="uint8")
        return torch.from_numpy(pixels)


def presets(options: Options) -> list[Preset]:
    """Return the digits' preset and a 32 x 32 one; on a GPU the CIFAR-10 network instead."""
    if options.device.startswith("cuda"):
        found = [read_preset("cifar10", "cifar10", 3, 32, steps=31)]
    else:
        found = [
            read_preset("digits", None, 1, 8, steps=18),
            read_preset("32x32", "cifar10_small", 3, 32, steps=6),
        ]
    return [_shorten(preset) for preset in found] if options.quick else found


def read_preset(
    name: str, environment: str | None, channels: int, image_size: int, steps: int
) -> Preset:
    """Return the settings of the arm ``fedavg`` in a configuration environment."""
    loader = PhoenixConfigLoader(PROJECT / "conf", environment, {}, **CONFIG_LOADER_ARGS)
    arm: dict[str, Any] = loader["parameters"]["fedavg"]
    model = settle_model(ModelConfig.model_validate(arm["model"]), image_size)
    training = TrainingConfig.model_validate(arm["training"])
    training = settle_training(training, model, image_size, pooled=False)
    return Preset(name, model, training, channels, image_size, steps)


def _shorten(preset: Preset) -> Preset:
    training = preset.training.model_copy(update={"batch_size": 4})
    return replace(preset, training=training, steps=2)
