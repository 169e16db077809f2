"""A small residual network for images of 8 to 256 pixels."""

import math

from torch import Tensor, nn
from torch.nn import functional

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.metrics.judge_networks.base import JudgeNetwork

LARGEST_FIRST_STAGE = 32


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
