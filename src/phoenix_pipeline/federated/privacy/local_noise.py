"""Noise on the client, before anything is sent: for a server that is not trusted."""

import secrets
from collections.abc import Mapping

import torch
from torch import Tensor

from phoenix_pipeline.federated.aggregation.clipping import clip_update, update_norm
from phoenix_pipeline.federated.records import LocalNoise


def privatize(
    trained: Mapping[str, Tensor], received: Mapping[str, Tensor], noise: LocalNoise, seed: int
) -> dict[str, Tensor]:
    """Return ``received`` plus the clipped and noisy update, on the CPU.

    Args:
        trained: floating-point arrays after local training.
        received: the same arrays as the server sent them.
        noise: clipping norm S and multiplier z; each value gets noise of deviation ``z S``.
        seed: of the noise.
    """
    arrays = {name: tensor.detach().cpu() for name, tensor in trained.items()}
    # In one order: that of a resumed run differs, and the noise must not.
    base = dict(sorted(received.items()))
    clipped = clip_update(arrays, base, update_norm(arrays, base), noise.clip_norm)
    generator = torch.Generator().manual_seed(seed)
    std = noise.noise_multiplier * noise.clip_norm
    return {
        name: clipped[name] + std * torch.randn(t.shape, generator=generator, dtype=t.dtype)
        for name, t in base.items()
    }


def secret_seed() -> int:
    """Return a seed from the operating system, which nobody else can derive."""
    return secrets.randbits(63)
