"""Class-conditional diffusion: which class each image of a batch is of, and which rows may move.

The U-Net has an embedding (``class_embedding``) with a row per class and one more, the *null
class*, that stands for "any". A label is replaced by it now and then in training, so that one
network learns the images of a class and all images (classifier-free guidance, Ho and Salimans,
arXiv 2207.12598).
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.optimization.class_rows import rows_not_held


def null_class(unet: nn.Module) -> int:
    """Return the row of the null class: the last of the embedding of a conditional network."""
    # Its array need not be a parameter.
    embedding: Any = unet.class_embedding
    return int(embedding.num_embeddings) - 1


@dataclass(frozen=True)
class Condition:
    """``labels``: int64 [N], one per image of a client, in 0..``null``-1; ``null``: number of
    classes, which is the row of the null class; ``dropout``: how often it replaces a label.
    """

    labels: Tensor
    null: int
    dropout: float

    def at(self, indices: Tensor) -> "Condition":
        """Return the condition of the images at ``indices`` [B]."""
        return replace(self, labels=self.labels[indices])

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the labels, some replaced by the null class."""
        if not self.dropout:
            return self.labels
        drawn = torch.rand(len(self.labels), generator=generator, device=self.labels.device)
        return torch.where(drawn < self.dropout, self.null, self.labels)

    def rows_not_held(self) -> Tensor:
        """Return the rows of the classes that none of the images is of, int64."""
        return rows_not_held(self.labels, self.null)


def condition_of(network: nn.Module, model: ModelConfig, labels: Tensor | None) -> Condition | None:
    """Return the classes of a client's images; None for an unconditional network."""
    if model.conditioning == "none" or labels is None:
        return None
    return Condition(labels, null_class(network), model.label_dropout)
