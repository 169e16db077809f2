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
from phoenix_pipeline.federated.compression.channels import Channels, packing_of

LARGEST_NIBBLE = 7
_ZERO = 8


def pack_nibbles(codes: Tensor, channels: Channels) -> list[Tensor]:
    """Return the bytes of each array, of ``codes`` [n]."""
    packing = packing_of(channels, 2)
    nibbles = packing.pad(codes + _ZERO, _ZERO).to(torch.uint8)
    return list((nibbles[:, 0] | (nibbles[:, 1] << 4)).split(packing.groups))


def unpack_nibbles(packed: Tensor, channels: Channels, codec: str) -> Tensor:
    """Return float codes [n] of the bytes ``packed``; raises FederationError naming ``codec``."""
    padded = torch.stack([packed & 15, packed >> 4], dim=1)
    nibbles, is_padded = packing_of(channels, 2).take(padded, _ZERO)
    if bool((nibbles == 0).any()) or not is_padded:
        raise FederationError(f"{codec} codes must be -7..7, padded by 0")
    return nibbles.float() - _ZERO


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
        arrays = channels.as_vectors
        widths = self.step * (arrays.sums(values.square()) / arrays.lengths).sqrt()
        safe = torch.where(widths > 0, widths, torch.ones_like(widths))
        codes = (values / arrays.spread(safe)).round_().clamp_(-LARGEST_NIBBLE, LARGEST_NIBBLE)
        used = arrays.sums(codes.square()).clamp_min_(1.0)
        scales = arrays.sums(values * codes) / used
        return {"codes": pack_nibbles(codes, arrays), "scales": scales.split(1)}

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Multiply; codes of -8, scales below 0 and a padding that is not 0 are refused."""
        arrays, scales = channels.as_vectors, torch.cat(list(parts["scales"]))
        codes = unpack_nibbles(torch.cat(list(parts["codes"])), arrays, "uniform")
        if bool((scales < 0).any()):
            raise FederationError("uniform scales must be 0 or more")
        return codes * arrays.spread(scales)
