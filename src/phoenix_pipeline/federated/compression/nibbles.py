"""Codes -7..7, two in a byte: the first in the low half, plus 8 each; each array by itself."""

import torch
from torch import Tensor

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
    """Return the float codes [n] in the bytes ``packed`` of all arrays.

    Raises:
        FederationError: a code of -8, or a padding that is not 0; names ``codec``.
    """
    padded = torch.stack([packed & 15, packed >> 4], dim=1)
    nibbles, is_padded = packing_of(channels, 2).take(padded, _ZERO)
    if bool((nibbles == 0).any()) or not is_padded:
        raise FederationError(f"{codec} codes must be -7..7, padded by 0")
    return nibbles.float() - _ZERO
