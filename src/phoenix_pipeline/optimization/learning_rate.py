"""The learning rate as a function of the run's progress, so that rounds do not restart it."""

import math

from phoenix_pipeline.config import TrainingConfig


def learning_rate_at(progress: float, peak: float, config: TrainingConfig) -> float:
    """Return the step size at ``progress`` in [0, 1]: linear warm-up, then the schedule.

    ``cosine`` falls to 0 at the end (Loshchilov and Hutter, arXiv 1608.03983, without restarts).
    """
    warmup = min(1.0, (progress + 1e-3) / config.lr_warmup) if config.lr_warmup > 0.0 else 1.0
    if config.lr_schedule == "constant":
        return peak * warmup
    after = max(0.0, progress - config.lr_warmup) / max(1e-12, 1.0 - config.lr_warmup)
    return peak * warmup * 0.5 * (1.0 + math.cos(math.pi * min(1.0, after)))
