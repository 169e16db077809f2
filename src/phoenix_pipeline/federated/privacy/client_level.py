"""Client-level differential privacy: its noise, also at clients, its rounds and its epsilon."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from phoenix_pipeline.config import DifferentialPrivacyConfig, FederationConfig
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.federated.aggregation.clipping import clip_update, update_norm
from phoenix_pipeline.federated.aggregation.private_mean import PrivateRound
from phoenix_pipeline.federated.aggregation.rule import widened
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent, noise_multiplier_for
from phoenix_pipeline.federated.records import LocalNoise
from phoenix_pipeline.federated.wire import join
from phoenix_pipeline.optimization.gaussian_mechanism import gaussian_mechanism


def privatize(
    trained: Mapping[str, Tensor],
    received: Mapping[str, Tensor],
    noise: LocalNoise,
    seed: int | None,
) -> dict[str, Tensor]:
    """Return ``received`` plus clipped, noisy update; raises TrainingError if not finite."""
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


# Replacing one client's clipped update by another moves it by up to twice the norm.
_LOCAL_SENSITIVITY = 2.0
_COUNT_NOISE_SHARE = 1.0 / 20.0


@dataclass(frozen=True)
class ClientLevelPrivacy:
    """Noise over the norm and, ``accounted``, over the sensitivity; the rates of a run."""

    config: DifferentialPrivacyConfig
    noise_multiplier: float
    accounted: float
    sampling_rate: float
    expected_clients: float
    count_noise: float

    @classmethod
    def of(cls, federation: FederationConfig, num_clients: int) -> "ClientLevelPrivacy":
        """Return the mechanism of a run; raises SettingsError for a target out of reach."""
        config = federation.differential_privacy
        rate, sensitivity = federation.client_fraction, 1.0
        if config.placement == "local":
            # Whoever reads the messages sees who sent them: no amplification by sampling.
            rate, sensitivity = 1.0, _LOCAL_SENSITIVITY
        if config.noise_multiplier is not None:
            accounted = config.noise_multiplier / sensitivity
        else:
            accounted = noise_multiplier_for(
                config.target_epsilon or 0.0, config.delta, rate, federation.num_rounds
            )
        expected = federation.client_fraction * num_clients
        noise, count_noise = accounted * sensitivity, 0.0
        if config.clipping == "adaptive":
            count_noise = config.adaptive.count_noise or max(
                accounted, _COUNT_NOISE_SHARE * expected
            )
            noise = _update_noise(accounted, count_noise)
        return cls(config, noise, accounted, rate, expected, count_noise)

    @property
    def is_central(self) -> bool:
        """Whether the server adds the noise."""
        return self.config.placement == "central"

    def epsilon(self, rounds: int) -> float:
        """Return epsilon after ``rounds``: of the run if central, else in which the client sent."""
        return epsilon_spent(self.accounted, self.sampling_rate, rounds, self.config.delta)

    def round(self, clip_norm: float | None, seed: int | None) -> PrivateRound:
        """Return what a round's rule needs; ``seed``: of the noise, None: secret noise."""
        adaptive = self.config.adaptive
        is_adaptive = self.config.clipping == "adaptive"
        return PrivateRound(
            clip_norm=clip_norm if is_adaptive and clip_norm else self.config.clip_norm,
            noise_multiplier=self.noise_multiplier,
            expected_clients=self.expected_clients,
            seed=seed,
            quantile=adaptive.quantile,
            learning_rate=adaptive.learning_rate if is_adaptive else 0.0,
            count_noise=self.count_noise,
        )


def _update_noise(total: float, count_noise: float) -> float:
    """Return the updates' multiplier such that both releases cost ``total`` (1905.03871, th. 1)."""
    if total == 0.0:
        return 0.0
    left = total**-2 - (2.0 * count_noise) ** -2
    if left <= 0.0:
        raise SettingsError(
            f"federation.differential_privacy.adaptive.count_noise is {count_noise:g}; with a "
            f"noise multiplier of {total:g} more than {total / 2:g} is needed"
        )
    return 1.0 / math.sqrt(left)
