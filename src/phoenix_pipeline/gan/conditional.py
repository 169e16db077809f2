"""Networks of the DCGAN that know classes; each has a row for each class."""

from typing import cast

import torch
from torch import Tensor, nn


class ClassGenerator(nn.Module):
    """Makes images of a class: its embedding lengthens the latent vector (arXiv 1411.1784)."""

    def __init__(self, layers: nn.Module, num_classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.layers = layers
        self.class_embedding = nn.Embedding(num_classes, embedding_dim)

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:
        """Map latent vectors [N, L, 1, 1] and labels [N] to images [N, C, H, W] in [-1, 1]."""
        of_class = self.class_embedding(labels)[:, :, None, None]
        return cast(Tensor, self.layers(torch.cat([latent, of_class], dim=1)))


class ProjectionDiscriminator(nn.Module):
    """Judges an image and its class (Miyato and Koyama, arXiv 1802.05637, figure 1d).

    The logit is that of the image alone plus the inner product of its features, summed over places,
    and the embedding of the class.
    """

    def __init__(self, features: nn.Module, head: nn.Module, num_classes: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.class_embedding = nn.Embedding(num_classes, width)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Map images [N, C, H, W] and their labels [N] to logits [N], positive for real."""
        features = self.features(images)
        projection = (self.class_embedding(labels) * features.sum(dim=(2, 3))).sum(dim=1)
        return cast(Tensor, self.head(features) + projection)
