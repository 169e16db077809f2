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


def num_channels(shape: Size) -> int:
    """Return how many scales an array of ``shape`` has: its output channels; of a vector one."""
    return shape[0] if len(shape) > 1 else 1


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


@dataclass(frozen=True)
class Packing:
    """Where codes of arrays lie that are packed ``group`` at a time, each array by itself."""

    channels: Channels
    group: int

    @cached_property
    def groups(self) -> list[int]:
        """Whole groups that each array fills, the last one padded."""
        return [math.ceil(size / self.group) for size in self.channels.sizes]

    @cached_property
    def places(self) -> Tensor:
        """Where each value's code lies among all padded ones, int64 [n]."""
        sizes = torch.tensor(self.channels.sizes)
        padding = torch.tensor(self.groups) * self.group - sizes
        before = padding.cumsum(0) - padding
        return torch.arange(int(sizes.sum())) + before.repeat_interleave(sizes)

    def pad(self, codes: Tensor, filler: int) -> Tensor:
        """Return ``codes`` [n] as int32 [groups, group], ``filler`` between arrays."""
        padded = torch.full((sum(self.groups) * self.group,), filler, dtype=torch.int32)
        return padded.index_copy_(0, self.places, codes.int()).view(-1, self.group)

    def take(self, padded: Tensor, filler: int) -> tuple[Tensor, bool]:
        """Return the codes [n] of :meth:`pad`, and whether all between the arrays is ``filler``."""
        flat = padded.reshape(-1)
        codes = flat.index_select(0, self.places)
        strangers = (flat != filler).sum() - (codes != filler).sum()
        return codes, not bool(strangers)


@lru_cache(maxsize=64)
def packing_of(channels: Channels, group: int) -> Packing:
    """Return the packing of ``channels`` by ``group``, which is worked out once."""
    return Packing(channels, group)
