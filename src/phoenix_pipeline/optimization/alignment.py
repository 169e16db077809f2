"""FedAdamW's pull: each local step goes a share of the way that the federation went last round.

Clients with skewed data drift apart between two averages. The last global step is the one direction
that all of them agree on, and each can compute it from the two last broadcasts that it received: it
costs no traffic (Liu et al., arXiv 2510.27486, "local-global alignment"; FedCM, arXiv 2106.10874,
does the same to gradients).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.learning_rate import learning_rate_at


class Alignment:
    """Adds ``share * learning_rate * global_step`` to the weights after every local step."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        global_step: Mapping[str, Tensor],
        share: float,
    ) -> None:
        """Bind ``parameters`` to the arrays of ``global_step``, which have the same names."""
        self._parameters: list[Tensor] = list(parameters.values())
        self._direction = [
            global_step[name].to(parameter.device) for name, parameter in parameters.items()
        ]
        self._share = share

    def correct_gradients(self) -> None:
        """Leave the gradients: in Adam's moments the pull would be divided by their size."""

    @torch.no_grad()
    def after_step(self, learning_rate: float) -> None:
        """Go along the last global step, as far as it went per unit of learning rate."""
        torch._foreach_add_(self._parameters, self._direction, alpha=self._share * learning_rate)


def alignment(
    shared: Mapping[str, nn.Parameter], global_step: Mapping[str, Tensor], share: float
) -> Alignment | None:
    """Return the pull on those ``shared`` parameters whose last step is known; None for none."""
    pulled = {name: p for name, p in shared.items() if name in global_step} if share else {}
    return Alignment(pulled, global_step, share) if pulled else None


def global_step(
    before: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    progress: tuple[float, float],
    steps: int,
    config: TrainingConfig,
) -> dict[str, Tensor]:
    """Return by how much the global weights moved per unit of learning rate.

    Args:
        before: global weights that an earlier round started from.
        now: those that this round starts from.
        progress: of the run at both times, in [0, 1].
        steps: local steps between them.
        config: course of the learning rate.

    Returns:
        ``(now - before) / sum of the learning rates``; empty where there were no steps.
    """
    start, end = progress
    points = (start + (end - start) * step / steps for step in range(steps))
    total = sum(learning_rate_at(point, config.learning_rate, config) for point in points)
    if total <= 0.0:
        return {}
    names = [name for name in now if name in before and now[name].is_floating_point()]
    return {name: (now[name] - before[name]) / total for name in names}
