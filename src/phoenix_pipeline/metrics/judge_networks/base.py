"""What the label judge's networks have in common. No training here."""

import torch
from torch import Tensor, nn


class JudgeNetwork(nn.Module):
    """Features of uint8 images, and a linear layer on them."""

    head: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features [N, 4 x channels] of uint8 images [N, C, H, W]."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, num_classes] of uint8 images [N, C, H, W]."""
        return self.head(self.features(images))

    def scaled(self, images: Tensor) -> Tensor:
        """Map uint8 images to [-1, 1] in the type of the weights."""
        weights: torch.Tensor = self.head.weight
        return images.to(weights.dtype) / 127.5 - 1.0
