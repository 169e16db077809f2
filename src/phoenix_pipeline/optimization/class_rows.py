"""Arrays with a row for each class: a client's images move the rows of the classes it holds."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EMBEDDING = "class_embedding.weight"


def is_by_class(name: str) -> bool:
    """Return whether the array ``name`` of a network has a row for each class."""
    return name == EMBEDDING or name.endswith(f".{EMBEDDING}")


def rows_not_held(labels: Tensor, num_classes: int) -> Tensor:
    """Return the classes, int64, of 0..``num_classes``-1 that none of ``labels`` [N] is."""
    held = torch.zeros(num_classes, dtype=torch.bool, device=labels.device)
    held[labels] = True
    return (~held).nonzero().flatten()


@dataclass(frozen=True)
class RowsAtRest:
    """Embeddings of classes that a client does not hold: they end as they were received.

    No image moves them, but weight decay and corrections of steps would, and the server takes a row
    that moved for a row that was trained.
    """

    rows: Tensor
    before: Mapping[str, Tensor]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], rows: Tensor) -> "RowsAtRest":
        """Return ``rows`` as the arrays by class among ``weights`` have them now."""
        found = {name: value.detach() for name, value in weights.items() if is_by_class(name)}
        return cls(rows, {name: value[rows].clone() for name, value in found.items()})

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Write them back."""
        for name, value in self.before.items():
            weights[name].detach()[self.rows] = value
