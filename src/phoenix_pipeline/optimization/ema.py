"""Exponential moving average of weights, with a horizon that is a fraction of the run.

The decay follows the power-function profile of Karras et al. (arXiv 2312.02696, eq. 3): at update
``t`` it is ``(1 - 1/t) ** (1/h - 1)``. The mean age of the averaged weights is then ``h`` times the
training so far, whatever its length, and the random initial weights are forgotten at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def ema_decay(update: int, horizon: float) -> float:
    """Return the decay of the ``update``-th update (1-based) for ``horizon`` in [0, 1).

    The first is 0 whatever the horizon: the initial weights are in no average.
    """
    if horizon <= 0.0 or update == 1:
        return 0.0
    return (1.0 - 1.0 / update) ** (1.0 / horizon - 1.0)


@torch.no_grad()
def update_ema(average: Sequence[Tensor], current: Sequence[Tensor], decay: float) -> None:
    """Set ``average = decay average + (1 - decay) current`` in place; integers are copied."""
    if not average:
        return
    floats = [i for i, tensor in enumerate(average) if tensor.is_floating_point()]
    torch._foreach_lerp_([average[i] for i in floats], [current[i] for i in floats], 1.0 - decay)
    for target, source in zip(average, current, strict=True):
        if not target.is_floating_point():
            target.copy_(source)
