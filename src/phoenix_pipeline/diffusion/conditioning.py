"""Class-conditional diffusion: which class each image of a batch is of, and which rows may move.

The U-Net has an embedding (``class_embedding``) with a row per class and one more, the *null
class*, that stands for "any". A label is replaced by it now and then in training, so that one
network learns the images of a class and all images (classifier-free guidance, Ho and Salimans,
arXiv 2207.12598).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDING = "class_embedding.weight"


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
        held = torch.zeros(self.null, dtype=torch.bool, device=self.labels.device)
        held[self.labels] = True
        return (~held).nonzero().flatten()


@dataclass(frozen=True)
class RowsAtRest:
    """Embeddings of classes that a client does not hold: they end as they were received.

    No image moves them, but weight decay and corrections of steps would, and the server takes a row
    that moved for a row that was trained.
    """

    rows: Tensor
    before: Tensor

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], condition: Condition | None) -> "RowsAtRest | None":
        """Return the rows as ``weights`` have them now; None where no such rows are trained."""
        if condition is None or EMBEDDING not in weights:
            return None
        rows = condition.rows_not_held()
        return cls(rows, weights[EMBEDDING].detach()[rows].clone())

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Write them back."""
        weights[EMBEDDING].detach()[self.rows] = self.before
