"""Dropout from generators of its own: torch's draws from one that all threads share."""

from collections.abc import Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn


class _Streams:
    """A network's generators by ``number``: a tensor on the CPU, data to ``torch.compile``."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = tuple(generators)
        number = next(_NUMBERS)
        self.number = torch.tensor(number)
        _STREAMS[number] = self


_NUMBERS = count()
_STREAMS: "WeakValueDictionary[int, _Streams]" = WeakValueDictionary()


class SeededDropout(nn.Dropout):
    """``nn.Dropout`` from set generators; under ``torch.vmap`` client ``i`` draws from its own."""

    _streams: _Streams | None = None
    _number: Tensor | None = None
    _one_by_one = True

    def draw_from(self, streams: _Streams | None) -> None:
        """Draw from ``streams`` from now on; None: as ``nn.Dropout`` does."""
        self._streams = streams
        self._number = None if streams is None else streams.number
        self._one_by_one = streams is None or len(streams.generators) == 1

    def forward(self, input: Tensor) -> Tensor:
        """Zero each value with probability ``p`` in training and scale the others by 1/(1-p)."""
        if not self.training or self._number is None:
            return super().forward(input)
        kept = 1.0 - self.p
        if self._one_by_one and not torch.compiler.is_compiling():
            return (input * _draw_mask(input, kept, _generators(self._number)[0])).div_(kept)
        # One operation to the compiler, whose graph a generator would break.
        mask: Tensor = _mask(input.detach(), kept, self._number)
        return (input * mask).div(kept)


def _draw_mask(like: Tensor, kept: float, generator: torch.Generator) -> Tensor:
    # In the order of the indices, whatever the memory layout: so the same mask in every one. Not by
    # its shape: under a vmap over images (DP-SGD) it has one image's, and a mask for each is due.
    mask = torch.empty_like(like, dtype=torch.bool, memory_format=torch.contiguous_format)
    return mask.bernoulli_(kept, generator=generator)


def _generators(number: Tensor) -> tuple[torch.Generator, ...]:
    return _STREAMS[int(number)].generators


@torch.library.custom_op("phoenix::dropout_mask", mutates_args=())
def _mask(like: Tensor, kept: float, number: Tensor) -> Tensor:
    """Return what is kept of ``like``, as booleans, from the only generator of ``number``."""
    [generator] = _generators(number)
    return _draw_mask(like, kept, generator)


@torch.library.custom_op("phoenix::dropout_masks", mutates_args=())
def _masks(like: Tensor, kept: float, number: Tensor) -> Tensor:
    """Return masks of the shape of ``like`` [C, ...], client ``i``'s from generator ``i``."""
    clients = zip(like, _generators(number), strict=False)
    return torch.stack([_draw_mask(part, kept, own) for part, own in clients])


@_mask.register_fake
@_masks.register_fake
def _like(like: Tensor, kept: float, number: Tensor) -> Tensor:
    return torch.empty_like(like, dtype=torch.bool, memory_format=torch.contiguous_format)


@_mask.register_vmap
def _mask_of_each(
    info: Any, in_dims: tuple[int | None, ...], like: Tensor, kept: float, number: Tensor
) -> tuple[Tensor, int]:
    dim = in_dims[0]
    if dim is None:
        raise ValueError("dropout under vmap was given values that all clients share")
    return _masks(like.movedim(dim, 0), kept, number), 0


def replace_dropout(network: nn.Module) -> None:
    """Put :class:`SeededDropout` in the place of every ``nn.Dropout`` of ``network``."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, SeededDropout(child.p))


def set_dropout_generators(network: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Let every :class:`SeededDropout` of ``network`` draw from ``generators``, if any."""
    streams = _Streams(generators) if generators else None
    for module in network.modules():
        if isinstance(module, SeededDropout):
            module.draw_from(streams)
