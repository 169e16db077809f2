"""One generator per purpose, derived from (run seed, role, numbers); no global reseeding anywhere.

Two derivations with different roles or numbers give statistically independent streams, and the
stream of a client in a round does not depend on which other clients take part.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, role: str, *numbers: int) -> int:
    """Return a 63-bit seed for ``role`` and ``numbers`` (a client, a round, an image, ...)."""
    text = "/".join([str(seed), role, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, role: str, *numbers: int) -> np.random.Generator:
    """Return NumPy's PCG64 seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, role, *numbers))


def torch_generator(
    seed: int, role: str, *numbers: int, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """Return a torch generator on ``device`` seeded by :func:`derive_seed`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, role, *numbers))
