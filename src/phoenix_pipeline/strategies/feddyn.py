"""FedDyn: each client's loss is bent so that all clients' optima become the federation's.

Acar et al., arXiv 2111.04263, algorithm 1. Nothing but the weights travels: the client keeps the
sum of its drifts, the server that of all. Personal layers are left out.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from phoenix_pipeline.config import Group
from phoenix_pipeline.optimization.corrections import (
    Arrange,
    BindCorrection,
    Correction,
    GradientPull,
    ProximalPull,
)
from phoenix_pipeline.strategies.strategy import (
    Arrays,
    ClientView,
    ServerView,
    Strategy,
    trained_like,
)


class FedDynSettings(Group):
    """How strong the penalty is."""

    alpha: float = Field(
        0.01, gt=0.0, description="Weight of the penalty, in units of gradient per weight."
    )


class FedDyn(Strategy):
    """Adds ``alpha (w - w_0) - g_i`` to each gradient.

    ``g_i``, kept at the client, falls by ``alpha`` x its drift in each round. The server's
    ``h`` falls by ``alpha`` x the mean drift of all clients, and the new weights are the mean of
    the replies less ``h / alpha``.
    """

    name: ClassVar[str] = "feddyn"
    Settings: ClassVar[type[Group]] = FedDynSettings
    settings: FedDynSettings

    def correction(self, client: ClientView) -> BindCorrection | None:
        """Return the penalty's gradient."""
        alpha = self.settings.alpha
        bent = {name: -array for name, array in client.kept.items()}

        def bind(shared: Mapping[str, nn.Parameter], arrange: Arrange) -> Correction:
            return _Both(
                ProximalPull(shared.values(), alpha),
                GradientPull(shared, arrange(bent) if bent else {}),
            )

        return bind

    @torch.no_grad()
    def after_training(self, client: ClientView, trained: Arrays) -> tuple[Arrays, Arrays]:
        """Keep the gradient of the client's own loss where it came to; send nothing more."""
        old, alpha = client.kept or trained_like(client.received), self.settings.alpha
        return {n: old[n] - alpha * (trained[n] - client.received[n]) for n in old}, {}

    def after_round(self, server: ServerView) -> tuple[Arrays, Arrays]:
        """Move ``h``, and the weights away from it."""
        old, alpha = server.kept or trained_like(server.before), self.settings.alpha
        drift = {n: server.aggregate[n] - server.before[n] for n in old}
        new: dict[str, Tensor] = {n: old[n] - alpha * server.share * drift[n] for n in old}
        moved = {n: server.aggregate[n] - new[n] / alpha for n in old}
        return {**server.aggregate, **moved}, new


class _Both(Correction):
    """Two corrections of gradients, one after the other."""

    def __init__(self, first: Correction, second: Correction) -> None:
        self._parts = (first, second)

    def correct_gradients(self) -> None:
        """Correct by both."""
        for part in self._parts:
            part.correct_gradients()
