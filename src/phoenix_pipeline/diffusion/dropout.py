"""Dropout from generators of its own: torch's draws from one that all threads share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class SeededDropout(nn.Dropout):
    """``nn.Dropout`` that draws from ``generators`` where they are set.

    One generator serves a plain forward pass. Under ``torch.vmap`` over clients, client ``i`` draws
    from ``generators[i]``, as it would alone.
    """

    generators: Sequence[torch.Generator] = ()

    def forward(self, input: Tensor) -> Tensor:
        """Zero each value with probability ``p`` in training and scale the others by 1/(1-p)."""
        if not self.training or not self.generators:
            return super().forward(input)
        if len(self.generators) == 1:
            return input * _draw_mask(input, 1.0 - self.p, self.generators[0])
        return input * _Masks.apply(input, 1.0 - self.p, self.generators)


def _draw_mask(like: Tensor, kept: float, generator: torch.Generator) -> Tensor:
    # In the order of the indices, whatever the memory layout: so the same mask in every one. Not by
    # its shape: under a vmap over images (DP-SGD) it has one image's, and a mask for each is due.
    mask = torch.empty_like(like, memory_format=torch.contiguous_format)
    return mask.bernoulli_(kept, generator=generator).div_(kept)


class _Masks(torch.autograd.Function):
    """A mask for each client of a ``vmap``, each from its own generator; it has no gradient."""

    @staticmethod
    def forward(input: Tensor, kept: float, generators: Sequence[torch.Generator]) -> Tensor:
        raise ValueError(f"{len(generators)} generators of dropout, but no vmap over clients")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int, ...],
        input: Tensor,
        kept: float,
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, int]:
        clients = zip(input.movedim(in_dims[0], 0), generators, strict=False)
        return torch.stack([_draw_mask(part, kept, own) for part, own in clients]), 0


def replace_dropout(network: nn.Module) -> None:
    """Put :class:`SeededDropout` in the place of every ``nn.Dropout`` of ``network``."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, SeededDropout(child.p))


def set_dropout_generators(network: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Let every :class:`SeededDropout` of ``network`` draw from ``generators``."""
    for module in network.modules():
        if isinstance(module, SeededDropout):
            module.generators = generators
