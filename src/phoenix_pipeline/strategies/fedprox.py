"""FedProx: a pull towards the global weights (arXiv 1812.06127, equation 2)."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import nn

from phoenix_pipeline.config import Group
from phoenix_pipeline.optimization.corrections import Arrange, BindCorrection, ProximalPull
from phoenix_pipeline.strategies.strategy import ClientView, Strategy


class FedProxSettings(Group):
    """How strong the pull is."""

    mu: float = Field(0.01, ge=0.0, description="The gradient of `mu / 2 ||w - w_0||^2`; 0: none.")


class FedProx(Strategy):
    """Adds ``mu (w - w_0)`` to each gradient."""

    name: ClassVar[str] = "fedprox"
    Settings: ClassVar[type[Group]] = FedProxSettings
    settings: FedProxSettings

    def correction(self, client: ClientView) -> BindCorrection | None:
        """Return the pull; None costs nothing."""
        mu = self.settings.mu

        def bind(shared: Mapping[str, nn.Parameter], arrange: Arrange) -> ProximalPull:
            return ProximalPull(shared.values(), mu)

        return bind if mu else None
