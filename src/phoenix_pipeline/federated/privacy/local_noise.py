"""Noise on the client, before anything is sent: for a server that is not trusted."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.federated.aggregation.clipping import clip_update, update_norm
from phoenix_pipeline.federated.aggregation.rule import widened
from phoenix_pipeline.federated.records import LocalNoise
from phoenix_pipeline.federated.wire import join
from phoenix_pipeline.optimization.gaussian_mechanism import gaussian_mechanism


def privatize(
    trained: Mapping[str, Tensor],
    received: Mapping[str, Tensor],
    noise: LocalNoise,
    seed: int | None,
) -> dict[str, Tensor]:
    """Return ``received`` plus the clipped and noisy update.

    ``noise``: clipping norm S and multiplier z; each value gets noise of deviation ``z S``.
    ``seed``: of the noise; None: secret noise.
    Raises TrainingError: the update is not finite; it has no norm that could be clipped.
    """
    # In the order of names: that of a resumed run differs, and the noise must not.
    arrays, base = join(trained), join(received)
    norm, deviation = update_norm(arrays, base), noise.noise_multiplier * noise.clip_norm
    if not math.isfinite(norm):
        raise TrainingError(
            f"the norm of the update is {norm}; lower training.learning_rate, or set "
            "training.max_grad_norm"
        )
    if seed is not None:
        clipped = clip_update(arrays, base, norm, noise.clip_norm)
        seeded = gaussian_mechanism(deviation, torch.Generator().manual_seed(seed))
        return {name: seeded.release(clipped[name]) for name in base}
    # The server knows what it sent: the update alone is rounded and made noisy.
    secret = gaussian_mechanism(deviation, None)
    scale = min(1.0, noise.clip_norm / norm) if norm > 0.0 else 1.0
    noisy = {}
    for name, start in base.items():
        update = secret.scaled(widened(arrays[name]) - widened(start), scale)
        noisy[name] = (widened(start) + secret.release(update)).to(start.dtype)
    return noisy
