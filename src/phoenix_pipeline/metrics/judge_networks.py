"""Networks of the label judge; ``evaluation.classifier.network`` chooses one. No training here."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.seeding import derive_seed

LARGEST_FIRST_STAGE = 32
_STEM_CHANNELS = 24
# Few steps: batch statistics are averaged over fewer of them than torch's 0.1 means.
_NORM_MOMENTUM = 0.4


class JudgeNetwork(nn.Module, ABC):
    """Features of uint8 images, and a linear layer on them."""

    head: nn.Linear

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features [N, 4 x channels] of uint8 images [N, C, H, W]."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes] of uint8 images [N, C, H, W]."""
        return self.head(self.features(images))

    def scaled(self, images: Tensor) -> Tensor:
        """Map uint8 images to [-1, 1] in the type of the weights."""
        return images.to(self.head.weight.dtype) / 127.5 - 1.0


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        hidden = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class ResidualNetwork(JudgeNetwork):
    """A stem that brings the image to at most 32 pixels, three stages, average pooling, a layer."""

    def __init__(
        self, image_channels: int, image_size: int, num_classes: int, config: ClassifierConfig
    ) -> None:
        super().__init__()
        channels = config.channels
        halvings = max(0, math.ceil(math.log2(image_size / LARGEST_FIRST_STAGE)))
        stem: list[nn.Module] = []
        for index in range(max(1, halvings)):
            source = image_channels if index == 0 else channels
            stride = 2 if halvings else 1
            stem += [
                nn.Conv2d(source, channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.stem = nn.Sequential(*stem)
        widths = (channels, 2 * channels, 4 * channels)
        blocks = []
        previous = channels
        for stage, width in enumerate(widths):
            for block in range(config.blocks_per_stage):
                blocks.append(ResidualBlock(previous, width, 2 if stage and not block else 1))
                previous = width
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(previous, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features [N, 4 x channels] of uint8 images [N, C, H, W]."""
        return self.stages(self.stem(self.scaled(images))).mean(dim=(2, 3))


class PooledStage(nn.Module):
    """Convolution, halving by the maximum, convolution; each normalised, then GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels)
        self.norm1 = nn.BatchNorm2d(out_channels, momentum=_NORM_MOMENTUM)
        self.conv2 = _convolution(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels, momentum=_NORM_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H // 2, W // 2]."""
        hidden = functional.max_pool2d(self.conv1(x), 2)
        hidden = functional.gelu(self.norm1(hidden))
        return functional.gelu(self.norm2(self.conv2(hidden)))


class PooledNetwork(JudgeNetwork):
    """A convolution, three pooled stages, the mean over places, a layer; for 8 pixels and more.

    ``channels`` are those of the first stage, the other two have four times as many. The paper's
    fixed whitening filters are left out: they gain a point of accuracy and blow up what real
    images do not have, so that samples with a little noise are judged with certainty
    (docs/cifar10.md). Its maximum over places is a mean here, for features that stay bounded.
    """

    def __init__(
        self, image_channels: int, image_size: int, num_classes: int, config: ClassifierConfig
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_channels, _STEM_CHANNELS, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(_STEM_CHANNELS, momentum=_NORM_MOMENTUM)
        widths = (_STEM_CHANNELS, config.channels, 4 * config.channels, 4 * config.channels)
        self.stages = nn.Sequential(*map(PooledStage, widths[:-1], widths[1:]))
        self.head = nn.Linear(widths[-1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features [N, 4 x channels] of uint8 images [N, C, H, W]."""
        hidden = functional.gelu(self.norm(self.stem(self.scaled(images))))
        return self.stages(hidden).mean(dim=(2, 3))


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that at first hands its input on in its first channels."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:in_channels])
    return layer


def build_judge_network(
    image_channels: int, image_size: int, num_classes: int, config: ClassifierConfig
) -> JudgeNetwork:
    """Return a network whose weights depend on ``config.seed``; no global generator changes."""
    kind = {"residual": ResidualNetwork, "pooled": PooledNetwork}[config.network]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(config.seed, "label_judge"))
        return kind(image_channels, image_size, num_classes, config)
