"""Many arrays as one vector, and what is one value for each of their channels.

A model has hundreds of small arrays. An operation on each of them costs more than their values do,
so codecs work on all of them at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Size, Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.wire import BLOCK

LARGEST_NIBBLE = 7
# The code 0 as it is written.
_ZERO = 8


@dataclass(frozen=True)
class Channels:
    """Arrays of ``shapes`` in one vector [n]; a channel is an index of the first axis.

    A vector, and a scalar, is one channel.
    """

    shapes: tuple[Size, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """Values of each array."""
        return [shape.numel() for shape in self.shapes]

    @cached_property
    def as_vectors(self) -> "Channels":
        """The same arrays with one channel each."""
        return channels_of(tuple(Size([size]) for size in self.sizes))

    @cached_property
    def lengths(self) -> Tensor:
        """Values of each channel, int64 [channels of all arrays]."""
        counts = torch.tensor([shape[0] if len(shape) > 1 else 1 for shape in self.shapes])
        return (torch.tensor(self.sizes) // counts).repeat_interleave(counts)

    @cached_property
    def _channel_of_each(self) -> Tensor:
        """Which channel each value is of, int32 [n]: looking up is faster than repeating."""
        return torch.arange(len(self.lengths), dtype=torch.int32).repeat_interleave(self.lengths)

    @cached_property
    def blocks(self) -> "tuple[Block, ...]":
        """Whole arrays that are worked on at a time: some small ones, or a large one."""
        return tuple(self._cut())

    def _cut(self) -> "Iterator[Block]":
        start, end, shapes = 0, 0, list[Size]()
        for size, shape in zip(self.sizes, self.shapes, strict=True):
            end += size
            shapes.append(shape)
            if end - start >= BLOCK:
                yield Block(start, end, channels_of(tuple(shapes)))
                start, shapes = end, []
        if shapes:
            yield Block(start, end, channels_of(tuple(shapes)))

    def spread(self, per_channel: Tensor) -> Tensor:
        """Return ``per_channel`` [channels] as a value for each value [n]."""
        return per_channel.index_select(0, self._channel_of_each)

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum of each channel [channels] of ``values`` [n]."""
        return torch.segment_reduce(values, "sum", lengths=self.lengths, unsafe=True)

    def maxima(self, values: Tensor) -> Tensor:
        """Return the largest value of each channel [channels] of ``values`` [n]."""
        return torch.segment_reduce(values, "max", lengths=self.lengths, unsafe=True)


class Block(NamedTuple):
    """The values ``start`` to ``end`` of a vector, which are the arrays of ``channels``."""

    start: int
    end: int
    channels: Channels


@lru_cache(maxsize=512)
def channels_of(shapes: tuple[Size, ...]) -> Channels:
    """Return the layout of arrays of ``shapes``, which is worked out once."""
    return Channels(shapes)


def pack_nibbles(codes: Tensor) -> Tensor:
    """Return uint8 [ceil(n / 2)] of int8 ``codes`` [n] in -7..7: two in a byte, the first in the
    low half; the last half may be left over, and is the code 0.
    """
    written = (codes + _ZERO).view(torch.uint8)
    pairs = torch.nn.functional.pad(written, (0, len(codes) % 2), value=_ZERO).view(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4)


def unpack_nibbles(packed: Tensor, count: int, codec: str) -> Tensor:
    """Return int8 codes [``count``] of :func:`pack_nibbles`; raises FederationError for others."""
    codes = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)
    if bool((codes == 0).any()) or bool((codes[count:] != _ZERO).any()):
        raise FederationError(f"{codec} codes must be -7..7, padded by 0")
    return codes[:count].view(torch.int8) - _ZERO
