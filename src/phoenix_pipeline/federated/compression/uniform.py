"""Steps of even width: the cheapest way to few bits where codes are entropy-coded afterwards.

With a Huffman code the number of codes costs nothing, so that steps may be as wide for rare large
values as for others: within 0.25 bits of what any code can do (Gish and Pierce, 1968). One width
for each array: where channels differ, the same width in all loses least for its bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Size, Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.channels import Channels, channels_of
from phoenix_pipeline.federated.compression.nibbles import (
    LARGEST_NIBBLE,
    pack_nibbles,
    unpack_nibbles,
)


@dataclass(frozen=True)
class Uniform:
    """``value = code x scale``: a scale for each array, codes -7..7, two in a byte.

    ``step``: the width of a step in root mean squares of the array. What lies beyond 7 of them is
    cut, so that error feedback must send the rest later.
    """

    step: float

    def parts(self, shape: Size) -> dict[str, tuple[Size, torch.dtype]]:
        """Return the bytes, and the scale [1]."""
        packed = Size([(shape.numel() + 1) // 2])
        return {"codes": (packed, torch.uint8), "scales": (Size([1]), torch.float32)}

    def encode(
        self, values: Tensor, channels: Channels, generator: Generator
    ) -> dict[str, Sequence[Tensor]]:
        """Round to the nearest code, then take the scale of least squares; nothing is random."""
        arrays = _as_vectors(channels)
        widths = self.step * (arrays.sums(values.square()) / arrays.lengths).sqrt()
        safe = torch.where(widths > 0, widths, torch.ones_like(widths))
        codes = (values / arrays.spread(safe)).round_().clamp_(-LARGEST_NIBBLE, LARGEST_NIBBLE)
        used = arrays.sums(codes.square()).clamp_min_(1.0)
        scales = arrays.sums(values * codes) / used
        return {"codes": pack_nibbles(codes, arrays), "scales": scales.split(1)}

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Multiply; codes of -8, scales below 0 and a padding that is not 0 are refused."""
        arrays, scales = _as_vectors(channels), torch.cat(list(parts["scales"]))
        codes = unpack_nibbles(torch.cat(list(parts["codes"])), arrays, "uniform")
        if bool((scales < 0).any()):
            raise FederationError("uniform scales must be 0 or more")
        return codes * arrays.spread(scales)


def _as_vectors(channels: Channels) -> Channels:
    """Return the same arrays with one channel each."""
    return channels_of(tuple(Size([size]) for size in channels.sizes))
