"""FedAdamW's pull: each local step goes a share of the way that the federation went last round.

Clients with skewed data drift apart between two averages. The last global step is the one direction
that all of them agree on, and each can compute it from the two last broadcasts that it received: it
costs no traffic (Liu et al., arXiv 2510.27486, "local-global alignment"; FedCM, arXiv 2106.10874,
does the same to gradients). Personal layers are not pulled.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from phoenix_pipeline.config import Group, TrainingConfig
from phoenix_pipeline.config.base import Fraction
from phoenix_pipeline.optimization.corrections import Arrange, BindCorrection, StepPull
from phoenix_pipeline.optimization.schedules import sum_of_rates
from phoenix_pipeline.strategies.strategy import ClientView, Strategy


class AlignmentSettings(Group):
    """How strong the pull is."""

    share: Fraction = Field(
        0.5, description="Share of the last global step that each local step goes along; 0: none."
    )


class Alignment(Strategy):
    """Adds ``share * learning_rate * last global step`` to the weights after every local step."""

    name: ClassVar[str] = "alignment"
    Settings: ClassVar[type[Group]] = AlignmentSettings
    needs_earlier_broadcast: ClassVar[bool] = True
    settings: AlignmentSettings

    def correction(self, client: ClientView) -> BindCorrection | None:
        """Return the pull along the last global step; None where the client knows none."""
        share = self.settings.share
        step = last_global_step(client) if share else {}
        if not step:
            return None

        def bind(shared: Mapping[str, nn.Parameter], arrange: Arrange) -> StepPull:
            return StepPull(shared, arrange(step), share)

        return bind


def last_global_step(client: ClientView) -> dict[str, Tensor]:
    """Return the mean step of the federation since the client's last round.

    A client that missed rounds takes the mean over them: the server sends it nothing more. In its
    first round a client knows no step.
    """
    before, progress = client.earlier
    work = client.work
    round_length = work.progress_end - work.progress_start
    missed = round((work.progress_start - progress) / round_length) if round_length > 0.0 else 0
    if not before or missed < 1:
        return {}
    span = (progress, work.progress_start)
    return global_step(before, client.received, span, missed * work.steps, client.training)


def global_step(
    before: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    progress: tuple[float, float],
    steps: int,
    config: TrainingConfig,
) -> dict[str, Tensor]:
    """Return ``(now - before)`` per summed learning rate between ``progress``; empty for none."""
    total = sum_of_rates(progress, steps, config)
    names = [name for name in now if name in before and now[name].is_floating_point()]
    if total <= 0.0 or not names:
        return {}
    moved = torch._foreach_sub([now[name] for name in names], [before[name] for name in names])
    return dict(zip(names, torch._foreach_div(moved, total), strict=True))
