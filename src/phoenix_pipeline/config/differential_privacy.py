"""Groups about differential privacy: of clients, and of single images."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from phoenix_pipeline.config.base import Group

_Delta = Annotated[float, Field(gt=0.0, lt=1.0)]


class _PrivacyConfig(Group):
    """What both kinds need: a bound, and noise or the epsilon that it is to be chosen for."""

    enabled: bool = Field(False, description="Switch it on.")
    clip_norm: float = Field(1.0, gt=0.0, description="Largest L2 norm of one contribution, S.")
    noise_multiplier: float | None = Field(
        None,
        ge=0.0,
        description="Standard deviation of the noise, over S; or `target_epsilon`.",
    )
    target_epsilon: float | None = Field(
        None, gt=0.0, description="Epsilon after the last round, from which the noise follows."
    )
    delta: _Delta = Field(
        1e-5, description="Delta of epsilon; below 1 / number of the clients or images."
    )

    @model_validator(mode="after")
    def _has_one_amount(self) -> Self:
        given = (self.noise_multiplier is not None) + (self.target_epsilon is not None)
        if self.enabled and given != 1:
            raise ValueError(
                f"enabled needs exactly one of noise_multiplier and target_epsilon; {given} given"
            )
        return self


class AdaptiveClippingConfig(Group):
    """`clipping: adaptive` (arXiv 1905.03871): the norm follows a quantile of all norms."""

    quantile: float = Field(
        0.5, gt=0.0, lt=1.0, description="Share of the updates that shall be within the norm."
    )
    learning_rate: float = Field(
        0.2, gt=0.0, description="Step of the norm's logarithm, per round and unit of that share."
    )
    count_noise: float | None = Field(
        None,
        gt=0.0,
        description="Standard deviation of the noise on the number of updates within the norm; "
        "null: a twentieth of the clients of a round, and no less than `noise_multiplier`.",
    )


class DifferentialPrivacyConfig(_PrivacyConfig):
    """Differential privacy of clients (DP-FedAvg, arXiv 1710.06963)."""

    placement: Literal["central", "local"] = Field(
        "central",
        description="`central`: the server clips updates and adds noise to their mean; `local`: "
        "each client does it before sending, against a server that is not trusted.",
    )
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="`adaptive`: `clip_norm` is only where it starts; `central` only."
    )
    adaptive: AdaptiveClippingConfig = AdaptiveClippingConfig()

    @property
    def is_central(self) -> bool:
        """Whether it is on and the server keeps the clients private."""
        return self.enabled and self.placement == "central"

    @model_validator(mode="after")
    def _can_adapt(self) -> Self:
        if self.enabled and self.clipping == "adaptive" and self.placement == "local":
            raise ValueError(
                "clipping adaptive needs placement central: noisy updates do not tell their norms; "
                "set clipping to fixed"
            )
        return self


class DpSgdConfig(_PrivacyConfig):
    """Differential privacy of single images: DP-SGD on the client (arXiv 1607.00133).

    Batches are drawn by Poisson sampling: `training.batch_size` is their expected size.
    """
