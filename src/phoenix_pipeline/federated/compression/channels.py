"""Many arrays as one vector, and what is one value for each of their channels.

A model has hundreds of small arrays. An operation on each of them costs more than their values do,
so codecs work on all of them at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Size, Tensor

from phoenix_pipeline.errors import FederationError

LARGEST_NIBBLE = 7
# The code 0 as it is written.
_ZERO = 8


def num_channels(shape: Size) -> int:
    """Return how many scales an array of ``shape`` has: its output channels; of a vector one."""
    return shape[0] if len(shape) > 1 else 1


def num_packed(size: int) -> int:
    """Return the bytes of ``size`` codes that lie two in a byte."""
    return math.ceil(size / 2)


@dataclass(frozen=True)
class Channels:
    """Arrays of ``shapes`` in one vector [n]; a channel is an index of the first axis."""

    shapes: tuple[Size, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """Values of each array."""
        return [shape.numel() for shape in self.shapes]

    @cached_property
    def counts(self) -> list[int]:
        """Channels of each array."""
        return [num_channels(shape) for shape in self.shapes]

    @cached_property
    def as_vectors(self) -> "Channels":
        """The same arrays with one channel each."""
        return channels_of(tuple(Size([size]) for size in self.sizes))

    @cached_property
    def lengths(self) -> Tensor:
        """Values of each channel, int64 [channels of all arrays]."""
        each = [size // count for size, count in zip(self.sizes, self.counts, strict=True)]
        return torch.tensor(each).repeat_interleave(torch.tensor(self.counts))

    @cached_property
    def _channel_of_each(self) -> Tensor:
        """Which channel each value is of, int32 [n]: looking up is faster than repeating."""
        return torch.arange(len(self.lengths), dtype=torch.int32).repeat_interleave(self.lengths)

    def spread(self, per_channel: Tensor) -> Tensor:
        """Return ``per_channel`` [channels] as a value for each value [n]."""
        return per_channel.index_select(0, self._channel_of_each)

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum of each channel [channels] of ``values`` [n]."""
        return torch.segment_reduce(values, "sum", lengths=self.lengths, unsafe=True)

    def maxima(self, values: Tensor) -> Tensor:
        """Return the largest value of each channel [channels] of ``values`` [n]."""
        return torch.segment_reduce(values, "max", lengths=self.lengths, unsafe=True)

    @cached_property
    def packed(self) -> list[int]:
        """Bytes of each array whose codes lie two in a byte, each array by itself."""
        return [num_packed(size) for size in self.sizes]

    @cached_property
    def _places(self) -> Tensor:
        """Where each value's code lies among all, with those that fill last bytes, int64 [n]."""
        sizes = torch.tensor(self.sizes)
        padding = torch.tensor(self.packed) * 2 - sizes
        before = padding.cumsum(0) - padding
        return torch.arange(int(sizes.sum())) + before.repeat_interleave(sizes)

    def pack(self, codes: Tensor) -> list[Tensor]:
        """Return the bytes of each array, of ``codes`` [n] in -7..7: the first in the low half."""
        padded = torch.full((2 * sum(self.packed),), _ZERO, dtype=torch.int32)
        padded.index_copy_(0, self._places, (codes + _ZERO).int())
        nibbles = padded.view(-1, 2).to(torch.uint8)
        return list((nibbles[:, 0] | (nibbles[:, 1] << 4)).split(self.packed))

    def unpack(self, packed: Sequence[Tensor], codec: str) -> Tensor:
        """Return float codes [n] of the bytes ``packed``; raises FederationError for others."""
        joined = torch.cat(list(packed))
        padded = torch.stack([joined & 15, joined >> 4], dim=1).reshape(-1)
        codes = padded.index_select(0, self._places)
        strangers = (padded != _ZERO).sum() - (codes != _ZERO).sum()
        if bool((codes == 0).any()) or bool(strangers):
            raise FederationError(f"{codec} codes must be -7..7, padded by 0")
        return codes.float() - _ZERO

    def join(self, arrays: Sequence[Tensor]) -> Tensor:
        """Return ``arrays`` as one float32 vector [n]."""
        return torch.cat([array.reshape(-1).float() for array in arrays])

    def cut(self, values: Tensor) -> list[Tensor]:
        """Return the arrays that lie in ``values`` [n]."""
        parts = values.split(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


@lru_cache(maxsize=64)
def channels_of(shapes: tuple[Size, ...]) -> Channels:
    """Return the layout of arrays of ``shapes``, which is worked out once."""
    return Channels(shapes)
