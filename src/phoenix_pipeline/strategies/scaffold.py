"""SCAFFOLD: each client steps as all clients do on average, by control variates.

Karimireddy et al., arXiv 1910.06378, algorithm 1 with option II for the variates. Their clients
take SGD's steps; here they take AdamW's. Variates of gradients would enter Adam's moments and be
divided by their size, so variates are of steps: the mean way that a client goes per unit of
learning rate. With SGD both are the same.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from phoenix_pipeline.config import ArmSettings, Group
from phoenix_pipeline.config.base import Fraction
from phoenix_pipeline.optimization.corrections import Arrange, BindCorrection, StepPull
from phoenix_pipeline.optimization.schedules import sum_of_rates
from phoenix_pipeline.strategies.strategy import (
    Arrays,
    ClientView,
    ServerView,
    Strategy,
    trained_like,
)


class ScaffoldSettings(Group):
    """How much of the difference between client and federation is taken away."""

    share: Fraction = Field(
        1.0, description="Of the difference of the variates, the share that corrects each step."
    )


class Scaffold(Strategy):
    """Each local step goes ``share (c - c_i)`` beside the optimizer's own.

    ``c_i``, kept at the client, is the mean step of its last round; ``c``, kept at the server, is
    the mean of all ``c_i`` by numbers of images. Both are zero at first. The traffic doubles.
    """

    name: ClassVar[str] = "scaffold"
    Settings: ClassVar[type[Group]] = ScaffoldSettings
    settings: ScaffoldSettings

    def why_not(self, arm: ArmSettings) -> str | None:
        """Refuse a client that sends half of what it keeps, and rows that rest at some clients."""
        if arm.federation.compression.is_split:
            return (
                "clients of federation.compression.partial_update usplit send half of their "
                "variates; set partial_update: full"
            )
        if arm.model.conditioning != "none":
            return (
                "with model.conditioning labels a class's weights rest at clients without it, "
                "which have no step to correct; set model.conditioning: none"
            )
        return None

    @property
    def disclosure(self) -> str:
        """Say what variates are."""
        return (
            "With its weights each client sent how the mean of its training steps had changed "
            "since its last round (SCAFFOLD's control variate), which tells no less than its "
            "update."
        )

    def told_like(self, weights: Arrays) -> dict[str, Tensor]:
        """The server's variate."""
        return trained_like(weights)

    def sent_like(self, weights: Arrays) -> dict[str, Tensor]:
        """The change of the client's variate."""
        return trained_like(weights)

    def tell(self, weights: Arrays, kept: Arrays) -> Arrays:
        """Send the server's variate, at first zeros."""
        return kept or trained_like(weights)

    def correction(self, client: ClientView) -> BindCorrection | None:
        """Return the pull along ``c - c_i``."""
        own = client.kept or trained_like(client.received)
        apart = {name: client.told[name] - own[name] for name in own}

        def bind(shared: Mapping[str, nn.Parameter], arrange: Arrange) -> StepPull:
            return StepPull(shared, arrange(apart), self.settings.share)

        return bind

    @torch.no_grad()
    def after_training(self, client: ClientView, trained: Arrays) -> tuple[Arrays, Arrays]:
        """Keep the new ``c_i``; send by how much it changed.

        All steps together went ``moved = (new c_i + share (c - c_i)) x sum of learning rates``.
        """
        old, work = client.kept or trained_like(client.received), client.work
        total = sum_of_rates((work.progress_start, work.progress_end), work.steps, client.training)
        if total <= 0.0:
            return old, trained_like(client.received)
        new = {
            name: (trained[name] - client.received[name]) / total
            - self.settings.share * (client.told[name] - old[name])
            for name in old
        }
        return new, {name: new[name] - old[name] for name in new}

    def after_round(self, server: ServerView) -> tuple[Arrays, Arrays]:
        """Move ``c`` by the mean change, times the share of the images that took part."""
        old = server.kept or trained_like(server.before)
        new = {name: old[name] + server.share * server.sent[name] for name in old}
        return server.aggregate, new
