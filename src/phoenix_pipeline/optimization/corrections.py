"""What a federation changes in a client's local steps: gradients before, weights after each one.

A strategy (``strategies/``) decides on corrections for one client in one round; training binds them
to its parameters and calls them. Those below are what strategies are made of.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from phoenix_pipeline.optimization.work import LocalWork

Arrange = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class Correction:
    """Bound to the parameters of one client in one round; by itself it changes nothing."""

    def correct_gradients(self) -> None:
        """Change the parameters' gradients in place, before they are clipped."""

    def after_step(self, learning_rate: float) -> None:
        """Change the parameters in place, after the optimizer has moved them."""


class BindCorrection(Protocol):
    """What a strategy decided on for one client: a correction that waits for its parameters."""

    def __call__(self, shared: Mapping[str, nn.Parameter], arrange: Arrange) -> Correction | None:
        """Return the correction of ``shared``; None where there is nothing to correct.

        ``shared``: the parameters that came from the server. Of clients that train as one program
        they are one vector, named ``shared``. ``arrange``: brings arrays by the model's names into
        the shape of ``shared``.
        """


def corrections_of(
    shared: Mapping[str, nn.Parameter], work: LocalWork, arrange: Arrange | None = None
) -> list[Correction]:
    """Return the corrections of ``work``, bound to the parameters that came from the server."""
    if not shared:
        return []

    def of_these(arrays: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: arrays[name] for name in shared if name in arrays}

    bound = (bind(shared, arrange or of_these) for bind in work.corrections)
    return [correction for correction in bound if correction]


class ProximalPull(Correction):
    """The gradient of ``mu / 2 ||w - w_0||^2``; ``w_0`` are the parameters as they are now."""

    def __init__(self, parameters: Iterable[nn.Parameter], mu: float) -> None:
        self._parameters = list(parameters)
        self._start = [parameter.detach().clone() for parameter in self._parameters]
        self._mu = mu

    @torch.no_grad()
    def correct_gradients(self) -> None:
        """Add ``mu (w - w_0)`` to each gradient, which must not be scaled any more."""
        moving = [i for i, p in enumerate(self._parameters) if p.grad is not None]
        if moving:
            start = [self._start[i] for i in moving]
            pull = torch._foreach_sub([self._parameters[i] for i in moving], start)
            torch._foreach_add_(_gradients(self._parameters), pull, alpha=self._mu)


class GradientPull(Correction):
    """Adds fixed arrays to the gradients of every local step."""

    def __init__(self, shared: Mapping[str, nn.Parameter], added: Mapping[str, Tensor]) -> None:
        self._parameters, self._added = _pairs(shared, added)

    @torch.no_grad()
    def correct_gradients(self) -> None:
        """Add the arrays to the gradients, which must not be scaled any more."""
        pairs = zip(self._parameters, self._added, strict=True)
        added = [array for parameter, array in pairs if parameter.grad is not None]
        if added:
            torch._foreach_add_(_gradients(self._parameters), added)


class StepPull(Correction):
    """Goes ``share * learning_rate * direction`` after every local step.

    The gradients are left alone: in Adam's moments the pull would be divided by their size.
    """

    def __init__(
        self, shared: Mapping[str, nn.Parameter], direction: Mapping[str, Tensor], share: float
    ) -> None:
        self._parameters, self._direction = _pairs(shared, direction)
        self._share = share

    @torch.no_grad()
    def after_step(self, learning_rate: float) -> None:
        """Go along the direction, as far as it goes per unit of learning rate."""
        torch._foreach_add_(self._parameters, self._direction, alpha=self._share * learning_rate)


def _pairs(
    shared: Mapping[str, nn.Parameter], arrays: Mapping[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    found = [name for name in shared if name in arrays]
    on_device = [arrays[name].to(shared[name].device) for name in found]
    return [shared[name] for name in found], on_device


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
