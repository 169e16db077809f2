"""How sure a measured attack is: intervals, and the chance of finding as much without a leak."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
FALSE_POSITIVE_RATE = 0.01
_DRAWS = 4_000
_SMALLEST = 1e-9
Key = TypeVar("Key")


def auc_interval(auc: float, num_members: int, num_held_out: int) -> tuple[float, float]:
    """Return the 95 % interval of an AUC from its value and the two numbers of images.

    Newcombe's method 5 (Statistics in Medicine 25, 2006): the AUCs from which the measured one is
    1.96 standard errors away, by Hanley and McNeil's variance at that AUC. Unlike an interval from
    the variance at the measured AUC it has a width at 0 and at 1.
    """
    # Half a second of imports, which commands that audit nothing do without.
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.ppf((1 + CONFIDENCE) / 2))

    def distance(theta: float) -> float:
        return abs(auc - theta) - z * _standard_error(theta, num_members, num_held_out)

    # At 0 and 1 the variance is 0, so that the measured value itself would be found.
    inside = min(max(auc, _SMALLEST), 1 - _SMALLEST)
    low = brentq(distance, 0.0, inside) if auc > 0 else 0.0
    high = brentq(distance, inside, 1.0) if auc < 1 else 1.0
    return float(low), float(high)


def tpr_interval(
    members: np.ndarray, held_out: np.ndarray, generator: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % interval of the true-positive rate at a false-positive rate of 1 %.

    It holds two uncertainties: where the threshold lies that 1 % of all new images pass (of
    ``M`` held-out ones a binomial number does, half of the time the next), and the share of members
    above it (Jeffreys' interval). With fewer than about 300 held-out images the threshold may be
    above all of them, and the lower end is 0.

    Args:
        members: scores [N].
        held_out: scores [M].
        generator: of the draws.
    """
    n, m = len(members), len(held_out)
    from_top = np.concatenate([[np.inf], np.sort(held_out)[::-1]])
    above = generator.binomial(m, FALSE_POSITIVE_RATE, _DRAWS) + generator.integers(0, 2, _DRAWS)
    threshold = from_top[np.minimum(above, m)]
    found = n - np.searchsorted(np.sort(members), threshold, side="right")
    shares = generator.beta(found + 0.5, n - found + 0.5)
    shares[np.isinf(threshold)] = 0.0
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return float(low), float(high)


def significant(p_values: Mapping[Key, float]) -> list[Key]:
    """Return keys whose p-values are below 5 % after Holm's correction for looking at all."""
    found: list[Key] = []
    for place, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        if p_values[key] > SIGNIFICANCE / (len(p_values) - place):
            break
        found.append(key)
    return found


def _standard_error(auc: float, num_members: int, num_held_out: int) -> float:
    """Return Hanley and McNeil's standard error, with Newcombe's symmetric count of images."""
    pairs = (num_members + num_held_out) / 2 - 1
    spread = 1 + pairs * ((1 - auc) / (2 - auc) + auc / (1 + auc))
    return float(np.sqrt(auc * (1 - auc) * spread / (num_members * num_held_out)))
