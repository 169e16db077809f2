"""What the label judge's networks have in common. No training here."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


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
