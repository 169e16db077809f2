"""How arrays are written: as they are, in half precision, 8 to 1 bits, or by largest values.

A codec knows from an array's shape alone which parts it writes. So both sides know what a message
must look like, and its size, before it is there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Size, Tensor

from phoenix_pipeline.config.compression import CodecConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.channels import (
    LARGEST_NIBBLE,
    Channels,
    num_channels,
    num_packed,
)
from phoenix_pipeline.registry import Registry, look_up
from phoenix_pipeline.strategies.strategy import is_state

Parts = dict[str, tuple[Size, torch.dtype]]
# One tensor per array, by the name of the part.
Written = dict[str, Sequence[Tensor]]

_LARGEST_CODE = 127
_LARGEST_FP16 = float(torch.finfo(torch.float16).max)


class Codec(Protocol):
    """Write and read floating-point arrays, all at once; all arithmetic is in float32."""

    def __hash__(self) -> int:
        """Codecs of one kind and settings are one key: what they need is worked out once."""

    def parts(self, shape: Size) -> Parts:
        """Return shape and dtype of what is written for an array of ``shape``, by name."""

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Written:
        """Return the parts of arrays whose finite ``values`` [n] lie one after another."""

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Return float32 values [n]; raises FederationError for what no encoder writes."""


@dataclass(frozen=True)
class Fp16:
    """Round to half precision; larger magnitudes than 65504 are cut to that."""

    def parts(self, shape: Size) -> Parts:
        """Return one array of the same shape."""
        return {"values": (shape, torch.float16)}

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Written:
        """Round to the nearest; nothing is random."""
        return {"values": channels.cut(_to_fp16(values))}

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Return the values; they are exact."""
        return channels.join(parts["values"])


@dataclass(frozen=True)
class Int8:
    """``value = code x scale``, codes -127..127, a scale for each index of the first axis.

    Rounding is stochastic, so the decoded array is right on average (QSGD, arXiv 1610.02132). A
    vector has one scale.
    """

    def parts(self, shape: Size) -> Parts:
        """Return the codes, and the scales [output channels]."""
        scales = Size([num_channels(shape)])
        return {"codes": (shape, torch.int8), "scales": (scales, torch.float32)}

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Written:
        """Round up with the probability that the value lies above the lower code."""
        codes, scales = _quantize(values, channels, _LARGEST_CODE, generator)
        return {
            "codes": channels.cut(codes.to(torch.int8)),
            "scales": scales.split(channels.counts),
        }

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Multiply; codes of -128 and scales below 0 are refused."""
        codes = torch.cat([array.reshape(-1) for array in parts["codes"]])
        scales = torch.cat(list(parts["scales"]))
        if bool((codes < -_LARGEST_CODE).any()) or bool((scales < 0).any()):
            raise FederationError("int8 codes must be -127..127 and scales 0 or more")
        return codes.float() * channels.spread(scales)


@dataclass(frozen=True)
class Int4:
    """As :class:`Int8` with codes -7..7, two in a byte: the first in the low half, plus 8 each."""

    def parts(self, shape: Size) -> Parts:
        """Return the bytes, and the scales [output channels]."""
        packed, scales = Size([num_packed(shape.numel())]), Size([num_channels(shape)])
        return {"codes": (packed, torch.uint8), "scales": (scales, torch.float32)}

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Written:
        """Round up with the probability that the value lies above the lower code."""
        codes, scales = _quantize(values, channels, LARGEST_NIBBLE, generator)
        return {"codes": channels.pack(codes), "scales": scales.split(channels.counts)}

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
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

    def parts(self, shape: Size) -> Parts:
        """Return the bytes, and the scale [1]."""
        packed = Size([num_packed(shape.numel())])
        return {"codes": (packed, torch.uint8), "scales": (Size([1]), torch.float32)}

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Written:
        """Round to the nearest code, then take the scale of least squares; nothing is random."""
        arrays = channels.as_vectors
        widths = self.step * (arrays.sums(values.square()) / arrays.lengths).sqrt()
        safe = torch.where(widths > 0, widths, torch.ones_like(widths))
        codes = (values / arrays.spread(safe)).round_().clamp_(-LARGEST_NIBBLE, LARGEST_NIBBLE)
        used = arrays.sums(codes.square()).clamp_min_(1.0)
        scales = arrays.sums(values * codes) / used
        return {"codes": arrays.pack(codes), "scales": scales.split(1)}

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Multiply; codes of -8, scales below 0 and a padding that is not 0 are refused."""
        return _scaled(parts, channels.as_vectors, "uniform")


@dataclass(frozen=True)
class TopK:
    """The ``density`` x n largest values of each array, as fp16, and their ascending places."""

    density: float

    def parts(self, shape: Size) -> Parts:
        """Return values and positions, at least one of each."""
        count = Size([max(1, math.ceil(self.density * shape.numel()))])
        return {"values": (count, torch.float16), "positions": (count, _index_dtype(shape))}

    def encode(self, values: Tensor, channels: Channels, generator: Generator) -> Written:
        """Choose by magnitude; nothing is random."""
        found, where = [], []
        for array, shape in zip(values.split(channels.sizes), channels.shapes, strict=True):
            count = self.parts(shape)["values"][0].numel()
            positions = array.abs().topk(count).indices.sort().values
            found.append(_to_fp16(array[positions]))
            where.append(positions.to(_index_dtype(shape)))
        return {"values": found, "positions": where}

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Return zeros but for the values; positions must be ascending and inside the array."""
        decoded = torch.zeros(sum(channels.sizes))
        arrays = decoded.split(channels.sizes)
        for own, found, at in zip(arrays, parts["values"], parts["positions"], strict=True):
            positions = at.long()
            inside = bool(((positions >= 0) & (positions < len(own))).all())
            if not inside or bool((positions.diff() <= 0).any()):
                raise FederationError(
                    f"positions of the largest values must be ascending within 0..{len(own) - 1}"
                )
            own[positions] = found.float()
        return decoded


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


def codec_for(name: str, array: Tensor, codec: Codec | None) -> Codec | None:
    """Return ``codec`` where it makes ``array`` smaller; None where that is sent as it is."""
    if codec is None or is_state(name, array) or not array.numel():
        return None
    written = sum(
        shape.numel() * dtype.itemsize for shape, dtype in codec.parts(array.shape).values()
    )
    return codec if written < array.numel() * array.element_size() else None


def _quantize(
    values: Tensor, channels: Channels, largest: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Return float codes [n], at most ``largest`` in size, and the scales [channels]."""
    scales = channels.maxima(values.abs()) / largest
    safe = channels.spread(torch.where(scales > 0, scales, torch.ones_like(scales)))
    drawn = torch.rand(values.shape, generator=generator)
    return (values / safe + drawn).floor().clamp(-largest, largest), scales


def _scaled(parts: Mapping[str, Sequence[Tensor]], channels: Channels, codec: str) -> Tensor:
    """Return codes times scales [n]; raises FederationError, naming ``codec``, for odd ones."""
    scales, codes = torch.cat(list(parts["scales"])), channels.unpack(parts["codes"], codec)
    if bool((scales < 0).any()):
        raise FederationError(f"{codec} scales must be 0 or more")
    return codes * channels.spread(scales)


def _to_fp16(array: Tensor) -> Tensor:
    return array.clamp(-_LARGEST_FP16, _LARGEST_FP16).half()


def _index_dtype(shape: Size) -> torch.dtype:
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if shape.numel() - 1 <= torch.iinfo(dtype).max:
            return dtype
    return torch.int64
