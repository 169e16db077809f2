"""A convolutional network that halves early, for photographs (after airbench, arXiv 2404.00498)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.metrics.judge_networks.base import JudgeNetwork

_STEM_CHANNELS = 24
# Few steps: batch statistics are averaged over fewer of them than torch's 0.1 means.
_NORM_MOMENTUM = 0.4


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
