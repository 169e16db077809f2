"""How arrays are written: as they are, in half precision, 8 to 1 bits, or by largest values.

A codec knows from the arrays' shapes alone which vectors it writes. So both sides know what a
message must look like, and its size, before it is there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Generator, Tensor

from phoenix_pipeline.config.compression import CodecConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.channels import (
    LARGEST_NIBBLE,
    Channels,
    pack_nibbles,
    unpack_nibbles,
)
from phoenix_pipeline.federated.wire import Lengths
from phoenix_pipeline.registry import Registry, look_up

Vectors = Mapping[str, Tensor]

_LARGEST_CODE = 127
_LARGEST_FP16 = float(torch.finfo(torch.float16).max)


class Codec(Protocol):
    """Write and read floating-point arrays, all at once; all arithmetic is in float32."""

    def __hash__(self) -> int:
        """Codecs of one kind and settings are one key: what they need is worked out once."""

    def parts(self, channels: Channels) -> Lengths:
        """Return length and dtype of each vector that is written for such arrays, by its name."""

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Vectors:
        """Return the vectors of arrays whose finite ``values`` [n] lie one after another."""

    def decode(self, parts: Vectors, channels: Channels) -> Tensor:
        """Return float32 values [n]; raises FederationError for what no encoder writes."""


@dataclass(frozen=True)
class Fp16:
    """Round to half precision; larger magnitudes than 65504 are cut to that."""

    def parts(self, channels: Channels) -> Lengths:
        """Return as many values as there are."""
        return {"values": (sum(channels.sizes), torch.float16)}

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Vectors:
        """Round to the nearest; nothing is random."""
        return {"values": _to_fp16(values)}

    def decode(self, parts: Vectors, channels: Channels) -> Tensor:
        """Return the values; they are exact."""
        return parts["values"].float()


@dataclass(frozen=True)
class Int8:
    """``value = code x scale``, codes -127..127, a scale for each index of the first axis.

    Rounding is stochastic, so the decoded array is right on average (QSGD, arXiv 1610.02132). A
    vector has one scale.
    """

    def parts(self, channels: Channels) -> Lengths:
        """Return the codes, and the scales [output channels]."""
        return {
            "codes": (sum(channels.sizes), torch.int8),
            "scales": (len(channels.lengths), torch.float32),
        }

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Vectors:
        """Round up with the probability that the value lies above the lower code."""
        quantize = partial(_quantize, largest=_LARGEST_CODE, generator=generator)
        codes, scales = _by_blocks(quantize, values, channels)
        return {"codes": codes, "scales": scales}

    def decode(self, parts: Vectors, channels: Channels) -> Tensor:
        """Multiply; codes of -128 and scales below 0 are refused."""
        codes, scales = parts["codes"], parts["scales"]
        if bool((codes < -_LARGEST_CODE).any()) or bool((scales < 0).any()):
            raise FederationError("int8 codes must be -127..127 and scales 0 or more")
        return _multiply(codes, scales, channels)


@dataclass(frozen=True)
class Int4:
    """As :class:`Int8` with codes -7..7, two in a byte: the first in the low half, plus 8 each."""

    def parts(self, channels: Channels) -> Lengths:
        """Return the bytes, and the scales [output channels]."""
        return _nibbles_and_scales(channels)

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Vectors:
        """Round up with the probability that the value lies above the lower code."""
        quantize = partial(_quantize, largest=LARGEST_NIBBLE, generator=generator)
        codes, scales = _by_blocks(quantize, values, channels)
        return {"codes": pack_nibbles(codes), "scales": scales}

    def decode(self, parts: Vectors, channels: Channels) -> Tensor:
        """Multiply; codes of -8, scales below 0 and a padding that is not 0 are refused."""
        return _scaled(parts, channels, "int4")


@dataclass(frozen=True)
class Uniform:
    """``value = code x scale``: a scale for each array, codes -7..7, two in a byte.

    Steps of even width, the cheapest way to few bits where codes are entropy-coded afterwards: with
    a Huffman code the number of codes costs nothing, so that steps may be as wide for rare large
    values as for others, within 0.25 bits of what any code can do (Gish and Pierce, 1968). One
    width for each array: where channels differ, the same in all loses least for its bits.
    ``step``: the width of a step in root mean squares of the array. What lies beyond 7 of them is
    cut, so that error feedback must send the rest later.
    """

    step: float

    def parts(self, channels: Channels) -> Lengths:
        """Return the bytes, and the scales [arrays]."""
        return _nibbles_and_scales(channels.as_vectors)

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Vectors:
        """Round to the nearest code, then take the scale of least squares; nothing is random."""
        codes, scales = _by_blocks(self._quantize, values, channels.as_vectors)
        return {"codes": pack_nibbles(codes), "scales": scales}

    def _quantize(self, values: Tensor, arrays: Channels) -> tuple[Tensor, Tensor]:
        widths = self.step * (arrays.sums(values.square()) / arrays.lengths).sqrt()
        safe = torch.where(widths > 0, widths, torch.ones_like(widths))
        codes = (values / arrays.spread(safe)).round_().clamp_(-LARGEST_NIBBLE, LARGEST_NIBBLE)
        used = arrays.sums(codes.square()).clamp_min_(1.0)
        return codes, arrays.sums(values * codes) / used

    def decode(self, parts: Vectors, channels: Channels) -> Tensor:
        """Multiply; codes of -8, scales below 0 and a padding that is not 0 are refused."""
        return _scaled(parts, channels.as_vectors, "uniform")


@dataclass(frozen=True)
class TopK:
    """The ``density`` x n largest values of each array, as fp16, and their ascending places.

    Places are as narrow as the array allows; those of one dtype are one vector.
    """

    density: float

    def parts(self, channels: Channels) -> Lengths:
        """Return values and positions, at least one of each array."""
        lengths = {"values": (sum(map(self._count, channels.sizes)), torch.float16)}
        for size in channels.sizes:
            name, dtype = _positions_of(size)
            lengths[name] = (lengths.get(name, (0, dtype))[0] + self._count(size), dtype)
        return lengths

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Vectors:
        """Choose by magnitude; nothing is random."""
        found: dict[str, list[Tensor]] = {"values": []}
        for array in values.split(channels.sizes):
            positions = array.abs().topk(self._count(len(array))).indices.sort().values
            name, dtype = _positions_of(len(array))
            found["values"].append(_to_fp16(array[positions]))
            found.setdefault(name, []).append(positions.to(dtype))
        return {name: torch.cat(vectors) for name, vectors in found.items()}

    def decode(self, parts: Vectors, channels: Channels) -> Tensor:
        """Return zeros but for the values; positions must be ascending and inside the array."""
        decoded, left = torch.zeros(sum(channels.sizes)), dict(parts)

        def take(name: str, count: int) -> Tensor:
            taken, left[name] = left[name][:count], left[name][count:]
            return taken

        for own in decoded.split(channels.sizes):
            count = self._count(len(own))
            positions = take(_positions_of(len(own))[0], count).long()
            inside = bool(((positions >= 0) & (positions < len(own))).all())
            if not inside or bool((positions.diff() <= 0).any()):
                raise FederationError(
                    f"positions of the largest values must be ascending within 0..{len(own) - 1}"
                )
            own[positions] = take("values", count).float()
        return decoded

    def _count(self, size: int) -> int:
        return max(1, math.ceil(self.density * size))


def codec_of(config: CodecConfig) -> Codec | None:
    """Return the codec of ``config``; None writes arrays as they are."""
    return look_up(CODECS, config.codec, "codec")(config)


BuildCodec = Callable[[CodecConfig], Codec | None]
CODECS = Registry[BuildCodec](
    "codecs",
    {
        "none": lambda config: None,
        "fp16": lambda config: Fp16(),
        "int8": lambda config: Int8(),
        "int4": lambda config: Int4(),
        "uniform": lambda config: Uniform(config.step),
        "top_k": lambda config: TopK(config.density),
    },
)


def _quantize(
    values: Tensor, channels: Channels, largest: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Return whole float codes [n], at most ``largest`` in size, and the scales [channels]."""
    scales = channels.maxima(values.abs()) / largest
    safe = channels.spread(torch.where(scales > 0, scales, torch.ones_like(scales)))
    drawn = torch.rand(values.shape, generator=generator)
    return (values / safe + drawn).floor().clamp(-largest, largest), scales


def _by_blocks(
    quantize: Callable[[Tensor, Channels], tuple[Tensor, Tensor]],
    values: Tensor,
    channels: Channels,
) -> tuple[Tensor, Tensor]:
    """Return int8 codes [n] and scales [channels] that ``quantize`` makes of each block."""
    codes = torch.empty(len(values), dtype=torch.int8)
    scales = []
    for start, end, own in channels.blocks:
        codes[start:end], of_block = quantize(values[start:end], own)
        scales.append(of_block)
    return codes, torch.cat(scales)


def _nibbles_and_scales(channels: Channels) -> Lengths:
    return {
        "codes": (math.ceil(sum(channels.sizes) / 2), torch.uint8),
        "scales": (len(channels.lengths), torch.float32),
    }


def _scaled(parts: Vectors, channels: Channels, codec: str) -> Tensor:
    """Return codes times scales [n]; raises FederationError, naming ``codec``, for odd ones."""
    scales = parts["scales"]
    codes = unpack_nibbles(parts["codes"], sum(channels.sizes), codec)
    if bool((scales < 0).any()):
        raise FederationError(f"{codec} scales must be 0 or more")
    return _multiply(codes, scales, channels)


def _multiply(codes: Tensor, scales: Tensor, channels: Channels) -> Tensor:
    """Return int8 ``codes`` [n] times their ``scales`` [channels], block by block."""
    values = torch.empty(len(codes))
    of_blocks = scales.split([len(own.lengths) for *_, own in channels.blocks])
    for (start, end, own), scale in zip(channels.blocks, of_blocks, strict=True):
        torch.mul(codes[start:end], own.spread(scale), out=values[start:end])
    return values


def _to_fp16(array: Tensor) -> Tensor:
    return array.clamp(-_LARGEST_FP16, _LARGEST_FP16).half()


def _positions_of(size: int) -> tuple[str, torch.dtype]:
    """Return name and dtype of the vector with places in arrays of ``size`` values."""
    fitting = (d for d in (torch.uint8, torch.int16, torch.int32) if size - 1 <= torch.iinfo(d).max)
    dtype = next(fitting, torch.int64)
    return f"positions_{dtype.itemsize}", dtype
