"""One generator per purpose, derived from (run seed, role, numbers); no global reseeding anywhere.

Two derivations with different roles or numbers give statistically independent streams, and the
stream of a client in a round does not depend on which other clients take part.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_READ_BITS = (1 << 32) - 1


def derive_seed(seed: int, role: str, *numbers: int) -> int:
    """Return a 63-bit seed for ``role`` and ``numbers`` (a client, a round, an image, ...)."""
    text = "/".join([str(seed), role, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def image_seeds(seed: int, role: str, count: int, *numbers: int) -> Iterator[int]:
    """Yield ``count`` seeds of images that differ in their low 32 bits: a generator reads no more.

    torch's generator on a CPU leaves the others out, so two of 50,000 seeds that are derived alone
    would make the same image. Seed ``i`` does not depend on ``count``.
    """
    taken: set[int] = set()
    for i in range(count):
        derived, attempt = derive_seed(seed, role, *numbers, i), 0
        while derived & _READ_BITS in taken:
            attempt += 1
            derived = derive_seed(seed, f"{role}/again", *numbers, i, attempt)
        taken.add(derived & _READ_BITS)
        yield derived


def numpy_generator(seed: int, role: str, *numbers: int) -> np.random.Generator:
    """Return NumPy's PCG64 seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, role, *numbers))


def torch_generator(
    seed: int, role: str, *numbers: int, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """Return a torch generator on ``device`` seeded by :func:`derive_seed`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, role, *numbers))
