"""Example-level differential privacy: the noise and the epsilon of one client's DP-SGD."""

from phoenix_pipeline.config import DpSgdConfig
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent, noise_multiplier_for
from phoenix_pipeline.optimization.work import sampling_rate


def noise_multiplier(
    config: DpSgdConfig, batch_size: int, num_images: int, run_steps: int
) -> float:
    """Return the multiplier of a client of ``num_images`` that makes ``run_steps`` in all rounds.

    Raises:
        SettingsError: the target epsilon cannot be reached.
    """
    if config.noise_multiplier is not None:
        return config.noise_multiplier
    return noise_multiplier_for(
        config.target_epsilon or 0.0,
        config.delta,
        sampling_rate(batch_size, num_images),
        run_steps,
    )


def epsilon(
    config: DpSgdConfig, batch_size: int, num_images: int, run_steps: int, steps_done: int
) -> float:
    """Return epsilon of this client's images after ``steps_done`` of ``run_steps`` steps."""
    multiplier = noise_multiplier(config, batch_size, num_images, run_steps)
    rate = sampling_rate(batch_size, num_images)
    return epsilon_spent(multiplier, rate, steps_done, config.delta)
