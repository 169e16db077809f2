"""Dropout from a generator of its own: torch's draws from one that all threads share."""

import torch
from torch import Tensor, nn


class SeededDropout(nn.Dropout):
    """``nn.Dropout`` that draws from ``generator`` where one is set."""

    generator: torch.Generator | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Zero each value with probability ``p`` in training and scale the others by 1/(1-p)."""
        if not self.training or self.generator is None:
            return super().forward(input)
        kept = torch.empty_like(input).bernoulli_(1.0 - self.p, generator=self.generator)
        return input * kept.div_(1.0 - self.p)


def replace_dropout(network: nn.Module) -> None:
    """Put :class:`SeededDropout` in the place of every ``nn.Dropout`` of ``network``."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, SeededDropout(child.p))


def set_dropout_generator(network: nn.Module, generator: torch.Generator | None) -> None:
    """Let every :class:`SeededDropout` of ``network`` draw from ``generator``."""
    for module in network.modules():
        if isinstance(module, SeededDropout):
            module.generator = generator
