"""A convolutional network that learns photographs in few passes (airbench, arXiv 2404.00498)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.judge_networks.base import JudgeNetwork

SMALLEST_IMAGE = 16
_PATCH = 2
_EPSILON = 5e-4
_CHUNK = 500
_LOGIT_SCALE = 1 / 9
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


class AirbenchNetwork(JudgeNetwork):
    """Fixed filters that whiten 2x2 patches, three pooled stages, the maximum over places, a layer.

    ``channels`` are those of the first stage, the other two have four times as many. Differs from
    the paper in that the filters' biases are learnt throughout. Raises SettingsError for images
    of fewer than 16 pixels.
    """

    def __init__(
        self, image_channels: int, image_size: int, num_classes: int, config: ClassifierConfig
    ) -> None:
        super().__init__()
        if image_size < SMALLEST_IMAGE:
            raise SettingsError(
                f"evaluation.classifier.network is airbench, which needs images of at least "
                f"{SMALLEST_IMAGE} px; these have {image_size}: set it to residual"
            )
        filters = 2 * image_channels * _PATCH**2
        self.whiten = nn.Conv2d(image_channels, filters, _PATCH)
        self.whiten.weight.requires_grad_(False)
        widths = (filters, config.channels, 4 * config.channels, 4 * config.channels)
        self.stages = nn.Sequential(*map(PooledStage, widths[:-1], widths[1:]))
        self.head = nn.Linear(widths[-1], num_classes, bias=False)
        with torch.no_grad():
            self.head.weight /= self.head.weight.std()

    def adapt(self, images: Tensor) -> None:
        """Set the filters to those that whiten ``images`` (a few thousand), and their negatives.

        Each is an eigenvector of the patches' second moments, divided by the root of its
        eigenvalue; what is added to that keeps noise from being blown up.
        """
        moments = torch.stack([self._moments(part) for part in images.split(_CHUNK)]).sum(0)
        values, vectors = torch.linalg.eigh(moments / len(images))
        filters = (vectors / (values + _EPSILON * values.mean()).sqrt()).T.flip(0)
        both = torch.cat([filters, -filters]).view_as(self.whiten.weight)
        with torch.no_grad():
            self.whiten.weight.copy_(both)

    def _moments(self, images: Tensor) -> Tensor:
        """Return the sum over images of their patches' mean outer product."""
        patches = self.scaled(images).unfold(2, _PATCH, 1).unfold(3, _PATCH, 1)
        places = patches.shape[2] * patches.shape[3]
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(len(images) * places, -1)
        return rows.T @ rows / places

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features [N, 4 x channels] of uint8 images [N, C, H, W]."""
        hidden = functional.gelu(self.whiten(self.scaled(images)))
        return self.stages(hidden).amax(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes], scaled down as in the paper."""
        return _LOGIT_SCALE * super().forward(images)


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that at first hands its input on in its first channels."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:in_channels])
    return layer
