"""Secret noise: the table is the discrete Gaussian to 2^-64, and draws follow the table."""

import math
from fractions import Fraction

import numpy as np
import pytest

from phoenix_pipeline.optimization import discrete_gaussian
from phoenix_pipeline.optimization.discrete_gaussian import (
    DEVIATION,
    TABLE_DEVIATION,
    alias_table,
    draw_discrete_gaussian,
    draw_uniform,
)

HALF = 16 * TABLE_DEVIATION


@pytest.fixture(scope="module")
def probabilities() -> list[int]:
    """What the table draws, in units of 2^-79, from -16 s on: exact."""
    threshold, alias = alias_table()
    drawn = [int(t) for t in threshold]
    for column, other in enumerate(alias):
        drawn[int(other)] += 2**64 - int(threshold[column])
    return drawn


def test_the_table_is_the_discrete_gaussian(probabilities: list[int]) -> None:
    assert sum(probabilities) == 2**79
    # Poisson summation: the sum of exp(-k^2 / 2 s^2) is s sqrt(2 pi), to exp(-2 pi^2 s^2).
    for k in (0, 1, -1, 1024, -3000, 5000, 9000):
        exact = math.exp(-(k**2) / (2 * 1024**2)) / (1024 * math.sqrt(2 * math.pi))
        got = float(Fraction(probabilities[k + HALF], 2**79))
        assert got == pytest.approx(exact, rel=1e-9, abs=2**-78)
    assert probabilities[1 : HALF + 1] == probabilities[: HALF - 1 : -1]


def test_the_table_has_the_variance_of_the_discrete_gaussian(probabilities: list[int]) -> None:
    second = sum(Fraction(p, 2**79) * (k - HALF) ** 2 for k, p in enumerate(probabilities))
    # That of P(k) ~ exp(-k^2 / 2 s^2) is s^2, to exp(-2 pi^2 s^2).
    assert float(second) == pytest.approx(1024**2, rel=1e-14)


def test_draws_have_the_moments_and_the_tails_of_a_gaussian() -> None:
    x = draw_discrete_gaussian(1_000_000) / DEVIATION
    assert DEVIATION == pytest.approx(2**28, rel=1e-5)
    assert x.mean() == pytest.approx(0.0, abs=0.005)
    assert x.std() == pytest.approx(1.0, abs=0.005)
    assert np.mean(x**4) == pytest.approx(3.0, abs=0.05)
    for bound, share in ((1.0, 0.31731), (2.0, 0.0455), (3.0, 0.0027)):
        assert np.mean(np.abs(x) > bound) == pytest.approx(share, abs=5 * (share / 1e6) ** 0.5)


def test_no_value_is_cut_at_5_8_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's normals on a CPU end there; these reach 16."""
    threshold = alias_table().threshold
    column = int(np.flatnonzero(threshold > 0)[0])
    assert column - HALF < -5.8 * TABLE_DEVIATION
    content = bytes(8) + column.to_bytes(2, "little")
    monkeypatch.setattr(discrete_gaussian._SecretStream, "read", lambda self, size: content)
    assert draw_discrete_gaussian(1)[0] / DEVIATION < -5.8


def test_no_two_draws_are_alike_and_each_has_a_key_of_256_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not np.array_equal(draw_discrete_gaussian(100), draw_discrete_gaussian(100))
    asked: list[int] = []
    monkeypatch.setattr(
        discrete_gaussian.secrets, "token_bytes", lambda n: asked.append(n) or bytes(n)
    )
    assert np.array_equal(draw_discrete_gaussian(100), draw_discrete_gaussian(100))
    assert asked == [32, 32]


def test_numbers_in_all_blocks_differ() -> None:
    drawn = draw_discrete_gaussian(3 * 2**15 + 5)
    assert len(np.unique(drawn)) > 3 * 2**15 - 50


def test_uniform_numbers_are_uniform() -> None:
    u = draw_uniform(200_000)
    assert u.min() >= 0.0 and u.max() < 1.0
    shares = np.histogram(u, bins=20, range=(0, 1))[0] / len(u)
    assert shares == pytest.approx(np.full(20, 0.05), abs=0.003)


def test_the_sum_of_three_draws_has_no_comb() -> None:
    """Its residues are uniform: too large a factor would leave gaps between multiples of it."""
    drawn = draw_discrete_gaussian(200_000)
    for factor in (2, 512, 512**2):
        wave = np.exp(2j * np.pi * (drawn % factor) / factor)
        assert abs(wave.mean()) < 5 / 200_000**0.5
