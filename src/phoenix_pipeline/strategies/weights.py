"""Which of a model's arrays are trained, and which are counts and statistics."""

from collections.abc import Mapping

import torch
from torch import Tensor

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def is_state(name: str, array: Tensor) -> bool:
    """Return whether ``array`` is no trained weight: a BatchNorm statistic, or not floating."""
    return not array.is_floating_point() or name.rpartition(".")[2] in _BUFFERS


def trained_like(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return zeros like those of ``weights`` that are trained."""
    return {n: torch.zeros_like(a) for n, a in weights.items() if not is_state(n, a)}
