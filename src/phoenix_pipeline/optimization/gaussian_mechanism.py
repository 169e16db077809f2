"""The Gaussian mechanism: a sum of bounded contributions is released with noise.

Either the noise follows a seed, so that runs can be repeated, and protects from nobody who knows
the seed; or it is secret, and contributions are rounded to a grid before they are summed, so that
sums are exact and nothing can be read from the gaps of floating point.
"""

from typing import Protocol

import torch
from torch import Tensor

from phoenix_pipeline.optimization.discrete_gaussian import DEVIATION, draw_discrete_gaussian

# Norms are taken in floating point: contributions are this much shorter than their bound.
_ROOM_FOR_ROUNDING = 1.0 - 2.0**-12


class GaussianMechanism(Protocol):
    """Contributions are scaled, summed from :meth:`zeros_like` on, and released."""

    def zeros_like(self, value: Tensor) -> Tensor:
        """Return the empty sum of contributions like ``value``."""

    def scaled(self, value: Tensor, scale: float) -> Tensor:
        """Return one contribution, ``value`` times ``scale``, as it is summed."""

    def weighted_sum(self, values: Tensor, scales: Tensor) -> Tensor:
        """Return the sum of ``values`` [B, ...] times ``scales`` [B], as it is summed."""

    def release(self, total: Tensor) -> Tensor:
        """Return a sum of contributions with noise."""


def gaussian_mechanism(
    deviation: float, generator: torch.Generator | None, dtype: torch.dtype | None = None
) -> GaussianMechanism:
    """Return noise of ``deviation``, by ``generator`` (None: secret) in ``dtype`` (None: as is)."""
    if generator is not None:
        return SeededGaussian(deviation, generator, dtype)
    return SecretGaussian(deviation) if deviation else _Exact()


class _Exact:
    """No noise, and no grid to round to."""

    def zeros_like(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value)

    def scaled(self, value: Tensor, scale: float) -> Tensor:
        return value * scale

    def weighted_sum(self, values: Tensor, scales: Tensor) -> Tensor:
        return torch.einsum("b,b...->...", scales.to(values.dtype), values)

    def release(self, total: Tensor) -> Tensor:
        return total


class SeededGaussian(_Exact):
    """Noise of torch's generator: whoever knows or finds its seed can take it off."""

    def __init__(
        self, deviation: float, generator: torch.Generator, dtype: torch.dtype | None = None
    ) -> None:
        self._deviation = deviation
        self._generator = generator
        self._dtype = dtype

    def release(self, total: Tensor) -> Tensor:
        """Return ``total`` with noise, in its dtype."""
        noise = torch.randn(
            total.shape,
            generator=self._generator,
            dtype=self._dtype or total.dtype,
            device=total.device,
        )
        return total + self._deviation * noise.to(total.dtype)


class SecretGaussian:
    """Discrete Gaussian noise on multiples of ``step``, 2^28 of which are the deviation.

    Values are rounded to the grid towards zero, which never lengthens a contribution, and summed in
    float64, where whole numbers below 2^53 are exact: if contributions have norms up to S, the sums
    of two neighbouring sets differ by at most ``S / step`` on the grid, which is the sensitivity of
    2004.00010, theorem 14. What is done to a release afterwards costs no privacy.
    """

    def __init__(self, deviation: float) -> None:
        self.step = deviation / DEVIATION

    def zeros_like(self, value: Tensor) -> Tensor:
        """Return zeros [...]."""
        return torch.zeros_like(value, dtype=torch.float64, device=_with_float64(value.device))

    def scaled(self, value: Tensor, scale: float) -> Tensor:
        """Return float64 whole numbers, of steps."""
        return (value.to(torch.float64) * (scale * _ROOM_FOR_ROUNDING / self.step)).trunc_()

    def weighted_sum(self, values: Tensor, scales: Tensor) -> Tensor:
        """Return float64 whole numbers, of steps."""
        factors = (scales.to(torch.float64) * (_ROOM_FOR_ROUNDING / self.step)).to(values.dtype)
        steps = values * factors.view(-1, *[1] * (values.dim() - 1))
        return steps.trunc_().to(_with_float64(values.device)).sum(0, dtype=torch.float64)

    def release(self, total: Tensor) -> Tensor:
        """Return ``total``, in steps, with noise; float64, no longer in steps."""
        noise = torch.from_numpy(draw_discrete_gaussian(total.numel())).view(total.shape)
        return (total + noise.to(total.device, torch.float64)) * self.step


def _with_float64(device: torch.device) -> torch.device:
    # Apple's GPUs have none.
    return torch.device("cpu") if device.type == "mps" else device
