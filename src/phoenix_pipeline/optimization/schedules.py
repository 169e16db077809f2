"""The learning rate as a function of the run's progress, and the decay of averaged weights."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.registry import look_up


def ema_decay(update: int, horizon: float) -> float:
    """Return the decay of the ``update``-th update, from 1, for ``horizon`` in [0, 1); first 0."""
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


def learning_rate_at(progress: float, peak: float, config: TrainingConfig) -> float:
    """Return the step size at ``progress`` in [0, 1]: linear warm-up, then the schedule.

    ``cosine`` falls to 0 at the end (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
    """
    warmup = min(1.0, (progress + 1e-3) / config.lr_warmup) if config.lr_warmup > 0.0 else 1.0
    after = max(0.0, progress - config.lr_warmup) / max(1e-12, 1.0 - config.lr_warmup)
    course = look_up(_COURSES, config.lr_schedule, "training.lr_schedule")
    return peak * warmup * course(min(1.0, after))


def sum_of_rates(progress: tuple[float, float], steps: int, config: TrainingConfig) -> float:
    """Return the sum of the learning rates of ``steps`` steps between two points of the run."""
    start, end = progress
    points = (start + (end - start) * step / steps for step in range(steps))
    return sum(learning_rate_at(point, config.learning_rate, config) for point in points)


# The share of the peak at a progress in [0, 1] after the warm-up.
_COURSES: dict[str, Callable[[float], float]] = {
    "constant": lambda after: 1.0,
    "cosine": lambda after: 0.5 * (1.0 + math.cos(math.pi * after)),
}
