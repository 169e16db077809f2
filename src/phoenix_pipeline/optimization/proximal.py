"""FedProx on the client: a pull towards the global weights that the round started from."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class ProximalTerm:
    """Gradient of ``mu / 2 ||w - w_global||^2`` (Li et al., arXiv 1812.06127, equation 2)."""

    def __init__(self, parameters: Iterable[nn.Parameter], mu: float) -> None:
        """Keep a copy of ``parameters`` as they are now: the global weights."""
        self._parameters = list(parameters)
        self._global = [parameter.detach().clone() for parameter in self._parameters]
        self._mu = mu

    @torch.no_grad()
    def correct_gradients(self) -> None:
        """Add ``mu (w - w_global)`` to each gradient, which must not be scaled any more."""
        gradients: list[Tensor] = []
        anchored: list[Tensor] = []
        parameters: list[Tensor] = []
        for parameter, start in zip(self._parameters, self._global, strict=True):
            if parameter.grad is not None:
                gradients.append(parameter.grad)
                anchored.append(start)
                parameters.append(parameter)
        if gradients:
            pull = torch._foreach_sub(parameters, anchored)
            torch._foreach_add_(gradients, pull, alpha=self._mu)

    def after_step(self, learning_rate: float) -> None:
        """Leave the weights: the gradient has the pull in it."""


def proximal_term(shared: Mapping[str, nn.Parameter], mu: float) -> ProximalTerm | None:
    """Return the term over the parameters that came from the server; None costs nothing."""
    return ProximalTerm(shared.values(), mu) if mu and shared else None
