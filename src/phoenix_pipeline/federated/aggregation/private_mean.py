"""The mean of clipped updates with Gaussian noise: DP-FedAvg (arXiv 1710.06963, estimator f_f).

Every client weighs the same, and the sum is divided by a number that does not depend on who
answered: whatever one client sends, the result moves by at most ``clip_norm / expected_clients``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation.clipping import update_norm
from phoenix_pipeline.federated.aggregation.rule import ReplyCheck, widened
from phoenix_pipeline.federated.wire import join
from phoenix_pipeline.optimization.gaussian_mechanism import gaussian_mechanism
from phoenix_pipeline.seeding import torch_generator


@dataclass(frozen=True)
class PrivateRound:
    """What is fixed before a round's replies are seen.

    Args:
        clip_norm: largest norm of an update, S.
        noise_multiplier: standard deviation of the noise on the sum of updates, over S.
        expected_clients: what the sum is divided by.
        seed: of this round's noise; None: secret noise.
        quantile: adaptive clipping: share of updates that shall be within the norm.
        learning_rate: adaptive clipping: step of the norm's logarithm; 0: fixed.
        count_noise: standard deviation of the noise on the number of updates within the norm.
    """

    clip_norm: float
    noise_multiplier: float
    expected_clients: float
    seed: int | None
    quantile: float = 0.5
    learning_rate: float = 0.0
    count_noise: float = 0.0


class PrivateMean:
    """A running sum of clipped updates: it holds one model however many clients there are."""

    def __init__(self, template: Mapping[str, Tensor], private: PrivateRound) -> None:
        refuse_integers(template)
        # In the order of names: that of a resumed run differs, and noise and norms must not.
        self._template = join(template)
        self._check = ReplyCheck(template)
        self._private = private
        self._updates = gaussian_mechanism(
            private.noise_multiplier * private.clip_norm, self._generator("update_noise")
        )
        self._counting = gaussian_mechanism(
            private.count_noise, self._generator("count_noise"), torch.float32
        )
        self._sums = {n: self._updates.zeros_like(widened(t)) for n, t in self._template.items()}
        self._centred_count = torch.zeros((), dtype=torch.float64)

    def add(self, arrays: Mapping[str, Tensor], weight: float) -> None:
        """Add one client's update, clipped; ``weight`` is a client's word and does not count."""
        joined = self._check(arrays, weight)
        norm = update_norm(joined, self._template)
        scale = min(1.0, self._private.clip_norm / norm) if norm > 0.0 else 1.0
        for name, tensor in self._template.items():
            update = widened(joined[name]) - widened(tensor)
            self._sums[name] += self._updates.scaled(update, scale)
        # Centred, a client changes the count by a half and not by one (1905.03871, section 2.2).
        half = torch.tensor(0.5 if norm <= self._private.clip_norm else -0.5, dtype=torch.float64)
        self._centred_count += self._counting.scaled(half, 1.0)

    def result(self) -> dict[str, Tensor]:
        """Return the new global weights; without any reply they are the old ones with noise."""
        new = {}
        for name, tensor in self._template.items():
            step = self._updates.release(self._sums[name]) / self._private.expected_clients
            new[name] = (widened(tensor) + step).to(tensor.dtype)
        return new

    def next_clip_norm(self) -> float:
        """Return the norm of the next round (1905.03871, algorithm 1); the same if it is fixed."""
        private = self._private
        if private.learning_rate == 0.0:
            return private.clip_norm
        share = 0.5 + self._counting.release(self._centred_count).item() / private.expected_clients
        # A noisy share may be far outside [0, 1]; limiting it is free and keeps the norm sane.
        step = min(1.0, max(0.0, share)) - private.quantile
        return private.clip_norm * math.exp(-private.learning_rate * step)

    def _generator(self, role: str) -> Generator | None:
        seed = self._private.seed
        return None if seed is None else torch_generator(seed, role)


def refuse_integers(template: Mapping[str, Tensor]) -> None:
    """Raise FederationError for arrays that noise cannot be added to."""
    for name, tensor in template.items():
        if not tensor.dtype.is_floating_point:
            raise FederationError(
                f"array {name} is {tensor.dtype}, to which no Gaussian noise can be added; "
                "federation.differential_privacy needs a model of floating-point arrays only"
            )
