"""FedProx on the client: a pull towards the global weights that the round started from."""

from collections.abc import Collection, Iterable

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
    def add_to_gradients(self) -> None:
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


def proximal_term(
    parameters: Iterable[tuple[str, nn.Parameter]], from_server: Collection[str], mu: float
) -> ProximalTerm | None:
    """Return the term over those named parameters that came ``from_server``; None costs nothing."""
    pulled = [parameter for name, parameter in parameters if name in from_server] if mu else []
    return ProximalTerm(pulled, mu) if pulled else None
