"""Secret Gaussian noise on whole numbers, from a cryptographic generator.

**Key.** Each draw has a fresh key of 256 bits from the operating system, which ChaCha20 turns into
bits on the CPU, whatever device the model is on. torch's CPU generator reads the low 32 bits of a
seed: its noise can be found by trying them all.

**Sampling.** Normals in floating point are no Gaussians: their gaps tell which sums they can be
part of (Mironov 2012, doi 10.1145/2382196.2382264); on a CPU torch's never exceed 5.8 deviations.
Two remedies are known. Holohan and Braghin (arXiv 2107.10138; Opacus' secure mode) sum several such
normals, which makes the attack slow; no theorem says what is left. Canonne, Kamath and Steinke
(arXiv 2004.00010) round values to a grid and add a *discrete* Gaussian, P(k) ~ exp(-k^2 / 2 s^2) on
whole numbers, for which the theorems hold as they stand. This is the second. Their sampler rejects,
so its time depends on the noise, and is slow in Python; here a table is read instead.

**The table** holds a discrete Gaussian of s = 1024 as whole multiples of 2^-79, cut at 16 s (beyond
lies less than 2^-180), for the alias method (Walker 1977): 15 bits choose a column, 64 bits one of
its two values. Three such draws x, y, z make 512^2 x + 512 y + z, a discrete Gaussian of
s = 2^28, by Poisson summation: given 512 x + y, x is a discrete Gaussian of s' = 2 around some
centre, whose sum differs between centres by 2 exp(-2 pi^2 s'^2) < 2^-110 of itself at most. In all
a vector of d values is within d x 2^-63 of the ideal in total variation: 10^-12 for ten million.
"""

import secrets
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

TABLE_DEVIATION = 1024
_COLUMN_BITS = 15
_COLUMNS = 1 << _COLUMN_BITS
_HALF = _COLUMNS // 2
_CAPACITY = 1 << 64
_FACTOR = 512
# s of the sum of three draws.
DEVIATION = TABLE_DEVIATION * (_FACTOR**4 + _FACTOR**2 + 1) ** 0.5
# A draw takes 8 bytes for the choice in a column and 2 for the column.
_BYTES = 10
# Values drawn at a time: all that they touch stays in the cache.
_BLOCK = 1 << 15


class AliasTable(NamedTuple):
    """Column i is value i below ``threshold[i]`` of 2^64, and ``alias[i]`` above.

    Values are counted from -16 s; ``threshold`` is uint64, ``alias`` int64, both [32768].
    """

    threshold: np.ndarray
    alias: np.ndarray


def draw_discrete_gaussian(count: int) -> np.ndarray:
    """Return int64 [count], secret draws with standard deviation ``DEVIATION``."""
    stream = _SecretStream()
    drawn = np.empty(count, dtype=np.int64)
    for start in range(0, count, _BLOCK):
        block = drawn[start : start + _BLOCK]
        block[:] = _draw(stream, len(block))
        for _ in range(2):
            block *= _FACTOR
            block += _draw(stream, len(block))
    return drawn


def draw_uniform(count: int) -> np.ndarray:
    """Return float64 [count], secret multiples of 2^-53 in [0, 1)."""
    words = np.frombuffer(_SecretStream().read(8 * count), dtype="<u8")
    return (words >> np.uint64(11)) * 2.0**-53


def _draw(stream: "_SecretStream", count: int) -> np.ndarray:
    table = alias_table()
    content = stream.read(_BYTES * count)
    choice = np.frombuffer(content, dtype="<u8", count=count)
    column = np.frombuffer(content, dtype="<u2", offset=8 * count) & np.uint16(_COLUMNS - 1)
    return np.where(choice < table.threshold[column], column, table.alias[column]) - _HALF


class _SecretStream:
    """Bytes of ChaCha20 (RFC 8439) under a key that nobody keeps; 256 GiB before it repeats."""

    def __init__(self) -> None:
        cipher = Cipher(ChaCha20(secrets.token_bytes(32), bytes(16)), mode=None)
        self._encryptor = cipher.encryptor()

    def read(self, size: int) -> bytes:
        return self._encryptor.update(bytes(size))


@lru_cache(maxsize=1)
def alias_table() -> AliasTable:
    """Return the table, computed once per process in exact arithmetic (Vose 1991)."""
    left = _weights()
    alias = np.arange(_COLUMNS, dtype=np.int64)
    threshold = np.zeros(_COLUMNS, dtype=np.uint64)
    small = [i for i, weight in enumerate(left) if weight < _CAPACITY]
    large = [i for i, weight in enumerate(left) if weight >= _CAPACITY]
    while small:
        poor, rich = small.pop(), large[-1]
        threshold[poor], alias[poor] = left[poor], rich
        left[rich] -= _CAPACITY - left[poor]
        if left[rich] < _CAPACITY:
            small.append(large.pop())
    # What is left fills its column alone: threshold 0, and itself as alias.
    return AliasTable(threshold, alias)


def _weights() -> list[int]:
    """Return the probabilities of -16 s to 16 s - 1 in units of 2^-79; their sum is 1."""
    total = _COLUMNS * _CAPACITY
    with localcontext() as context:
        context.prec = 60
        width = Decimal(2 * TABLE_DEVIATION**2)
        half = [(-Decimal(k * k) / width).exp() for k in range(_HALF + 1)]
        unit = total / (half[0] + half[_HALF] + 2 * sum(half[1:_HALF]))
        rounded = [int((value * unit).to_integral_value()) for value in half]
    weights = rounded[:0:-1] + rounded[:-1]
    weights[_HALF] += total - sum(weights)
    return weights
