"""Epsilon of the Gaussian mechanism, repeated and Poisson-sampled, and the noise for an epsilon.

Neighbours differ by one unit (a client, or an image) added or removed. With sampling: Renyi DP of
the sampled Gaussian mechanism (Mironov et al., arXiv 1908.10530); without it the exact curve.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import log_ndtr, logsumexp

from phoenix_pipeline.config import DpSgdConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.optimization.work import sampling_rate

_ORDERS = (
    *(1.0 + x / 100 for x in (1, 2, 5)),
    *(1.0 + x / 10 for x in range(1, 100)),
    *range(11, 64),
    *(64, 80, 96, 128, 192, 256, 512),
)
# Below this noise epsilon is in the hundreds, and the integrand too narrow for the grid.
_LEAST_SAMPLED_NOISE = 0.1
_MOST_NOISE = 1e6
_MAX_EPSILON = 1e9


def epsilon_spent(noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """Return epsilon after ``steps`` releases; 0 before the first, infinite without noise.

    ``noise_multiplier``: standard deviation of the noise over the clipping norm. ``sampling_rate``:
    with which each unit takes part in a step, independently (Poisson).
    """
    if steps == 0 or sampling_rate == 0.0:
        return 0.0
    if noise_multiplier == 0.0:
        return math.inf
    exact = gaussian_epsilon(noise_multiplier / math.sqrt(steps), delta)
    if sampling_rate >= 1.0 or noise_multiplier < _LEAST_SAMPLED_NOISE:
        return exact
    # Sampling never harms; RDP's conversion may lose more than a rate close to 1 gains.
    return min(exact, _sampled_epsilon(noise_multiplier, sampling_rate, steps, delta))


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Return the exact epsilon of one Gaussian mechanism (Balle and Wang, 1805.06530, theorem 8).

    ``R`` releases at ``z`` are one at ``z / sqrt(R)``.
    """
    return _turning_point(
        lambda epsilon: _gaussian_delta(noise_multiplier, epsilon) <= delta, _MAX_EPSILON
    )


@lru_cache(maxsize=256)
def noise_multiplier_for(target: float, delta: float, rate: float, steps: int) -> float:
    """Return the least noise multiplier whose epsilon is within ``target``.

    ``rate``: of sampling. Raises SettingsError: no noise of a sensible size reaches it.
    """
    if epsilon_spent(_MOST_NOISE, rate, steps, delta) > target:
        raise SettingsError(
            f"target_epsilon {target:g} cannot be reached in {steps} steps at delta {delta:g}; "
            "allow more of either"
        )
    return _turning_point(lambda z: epsilon_spent(z, rate, steps, delta) <= target, _MOST_NOISE)


def _gaussian_delta(z: float, epsilon: float) -> float:
    below = epsilon + log_ndtr(-0.5 / z - epsilon * z)
    above = log_ndtr(0.5 / z - epsilon * z)
    return float(math.exp(above) * -math.expm1(below - above)) if below < above else 0.0


def _sampled_epsilon(z: float, rate: float, steps: int, delta: float) -> float:
    """Convert RDP to (epsilon, delta) (Balle et al., arXiv 1905.09982, theorem 21)."""
    orders = np.asarray(_ORDERS, dtype=np.float64)
    converted = (
        steps * np.asarray(_sampled_rdp(z, rate))
        - (math.log(delta) + np.log(orders)) / (orders - 1.0)
        + np.log1p(-1.0 / orders)
    )
    return max(0.0, float(converted.min()))


@lru_cache(maxsize=1024)
def _sampled_rdp(z: float, rate: float) -> tuple[float, ...]:
    return tuple(sampled_gaussian_rdp(z, rate, order) for order in _ORDERS)


def sampled_gaussian_rdp(noise_multiplier: float, sampling_rate: float, order: float) -> float:
    """Return one step's Renyi divergence of ``order`` > 1 (1908.10530, section 3.3).

    It is ``log E[((1 - q) + q exp((2x - 1) / 2z^2))^order] / (order - 1)`` over ``x ~ N(0, z^2)``,
    here by the trapezoidal rule, which is exact to rounding for such integrands.
    """
    z, q = noise_multiplier, sampling_rate
    width = min(z / 8.0, z**2 / 2.0)
    x = np.arange(-14.0 * z, order + 14.0 * z, width)
    ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2.0 * x - 1.0) / (2.0 * z**2))
    log_density = -0.5 * (x / z) ** 2 - math.log(z * math.sqrt(2.0 * math.pi))
    log_moment = logsumexp(order * ratio + log_density) + math.log(width)
    return max(0.0, float(log_moment)) / (order - 1.0)


def _turning_point(holds: Callable[[float], bool], largest: float) -> float:
    """Return, to 1e-4 of itself and not below, where the monotone ``holds`` turns true."""
    low, high = 0.0, 1.0
    while high < largest and not holds(high):
        low, high = high, min(2.0 * high, largest)
    while high - low > 1e-4 * high and high > 1e-6:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def dp_sgd_noise(config: DpSgdConfig, batch_size: int, num_images: int, run_steps: int) -> float:
    """Return the multiplier of a client over ``run_steps``; raises SettingsError if none is."""
    if config.noise_multiplier is not None:
        return config.noise_multiplier
    rate = sampling_rate(batch_size, num_images)
    return noise_multiplier_for(config.target_epsilon or 0.0, config.delta, rate, run_steps)


def dp_sgd_epsilon(
    config: DpSgdConfig, batch_size: int, num_images: int, run_steps: int, steps_done: int
) -> float:
    """Return epsilon of this client's images after ``steps_done`` of ``run_steps`` steps."""
    multiplier = dp_sgd_noise(config, batch_size, num_images, run_steps)
    rate = sampling_rate(batch_size, num_images)
    return epsilon_spent(multiplier, rate, steps_done, config.delta)
