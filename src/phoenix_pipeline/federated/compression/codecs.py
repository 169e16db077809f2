"""How one array is written: as it is, in half precision, 8 or 4 bits, or by its largest values.

A codec knows from an array's shape alone which parts it writes. So both sides know what a message
must look like, and its size, before it is there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Size, Tensor

from phoenix_pipeline.config.compression import CodecConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.few_codes import INT3, TERNARY
from phoenix_pipeline.registry import look_up

Parts = dict[str, tuple[Size, torch.dtype]]

_LARGEST_CODE = 127
_LARGEST_NIBBLE = 7
_ZERO_NIBBLE = 8
_LARGEST_FP16 = float(torch.finfo(torch.float16).max)
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class Codec(Protocol):
    """Write and read one floating-point array; all arithmetic is in float32."""

    def parts(self, shape: Size) -> Parts:
        """Return shape and dtype of what is written for an array of ``shape``, by name."""

    def encode(self, array: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Return the parts of a finite ``array``; any randomness is from ``generator``."""

    def decode(self, parts: Mapping[str, Tensor], shape: Size) -> Tensor:
        """Return the float32 array of ``parts``, whose shapes and dtypes are right.

        Raises:
            FederationError: a value that no encoder writes.
        """


@dataclass(frozen=True)
class Fp16:
    """Round to half precision; larger magnitudes than 65504 are cut to that."""

    def parts(self, shape: Size) -> Parts:
        """Return one array of the same shape."""
        return {"values": (shape, torch.float16)}

    def encode(self, array: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Round to the nearest; nothing is random."""
        return {"values": _to_fp16(array)}

    def decode(self, parts: Mapping[str, Tensor], shape: Size) -> Tensor:
        """Return the values; they are exact."""
        return parts["values"].float()


@dataclass(frozen=True)
class Int8:
    """``value = code x scale``, codes -127..127, a scale for each index of the first axis.

    Rounding is stochastic, so the decoded array is right on average (QSGD, arXiv 1610.02132). A
    vector has one scale.
    """

    def parts(self, shape: Size) -> Parts:
        """Return the codes, and the scales [output channels]."""
        channels = shape[0] if len(shape) > 1 else 1
        return {"codes": (shape, torch.int8), "scales": (Size([channels]), torch.float32)}

    def encode(self, array: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Round up with the probability that the value lies above the lower code."""
        codes, scales = _quantize(array, _LARGEST_CODE, generator)
        return {"codes": codes.to(torch.int8).reshape(array.shape), "scales": scales}

    def decode(self, parts: Mapping[str, Tensor], shape: Size) -> Tensor:
        """Multiply; codes of -128 and scales below 0 are refused."""
        codes, scales = parts["codes"], parts["scales"]
        if bool((codes < -_LARGEST_CODE).any()) or bool((scales < 0).any()):
            raise FederationError("int8 codes must be -127..127 and scales 0 or more")
        return (codes.reshape(len(scales), -1).float() * scales[:, None]).reshape(shape)


@dataclass(frozen=True)
class Int4:
    """As :class:`Int8` with codes -7..7, two in a byte: the first in the low half, plus 8 each."""

    def parts(self, shape: Size) -> Parts:
        """Return the bytes, and the scales [output channels]."""
        channels = shape[0] if len(shape) > 1 else 1
        packed = Size([(shape.numel() + 1) // 2])
        return {"codes": (packed, torch.uint8), "scales": (Size([channels]), torch.float32)}

    def encode(self, array: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Round up with the probability that the value lies above the lower code."""
        codes, scales = _quantize(array, _LARGEST_NIBBLE, generator)
        nibbles = torch.full((2 * ((array.numel() + 1) // 2),), _ZERO_NIBBLE, dtype=torch.uint8)
        nibbles[: array.numel()] = (codes.reshape(-1) + _ZERO_NIBBLE).to(torch.uint8)
        return {"codes": nibbles[0::2] | (nibbles[1::2] << 4), "scales": scales}

    def decode(self, parts: Mapping[str, Tensor], shape: Size) -> Tensor:
        """Multiply; codes of -8, scales below 0 and a padding that is not 0 are refused."""
        packed, scales = parts["codes"], parts["scales"]
        nibbles = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)
        padding = nibbles[shape.numel() :]
        wrong = (nibbles == 0).any() or (padding != _ZERO_NIBBLE).any() or (scales < 0).any()
        if bool(wrong):
            raise FederationError("int4 codes must be -7..7, padded by 0, and scales 0 or more")
        codes = nibbles[: shape.numel()].float() - _ZERO_NIBBLE
        return (codes.reshape(len(scales), -1) * scales[:, None]).reshape(shape)


@dataclass(frozen=True)
class TopK:
    """The ``density`` x n values of largest magnitude, as fp16, and where they are.

    Positions are ascending, in the smallest integer type that holds them.
    """

    density: float

    def parts(self, shape: Size) -> Parts:
        """Return values and positions, at least one of each."""
        count = Size([max(1, math.ceil(self.density * shape.numel()))])
        return {"values": (count, torch.float16), "positions": (count, _index_dtype(shape))}

    def encode(self, array: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Choose by magnitude; nothing is random."""
        flat = array.reshape(-1)
        count = self.parts(array.shape)["values"][0].numel()
        positions = flat.abs().topk(count).indices.sort().values
        return {
            "values": _to_fp16(flat[positions]),
            "positions": positions.to(_index_dtype(array.shape)),
        }

    def decode(self, parts: Mapping[str, Tensor], shape: Size) -> Tensor:
        """Return zeros but for the values; positions must be ascending and inside the array."""
        positions = parts["positions"].long()
        inside = bool(((positions >= 0) & (positions < shape.numel())).all())
        if not inside or bool((positions.diff() <= 0).any()):
            raise FederationError(
                f"positions of the largest values must be ascending within 0..{shape.numel() - 1}"
            )
        flat = torch.zeros(shape.numel())
        flat[positions] = parts["values"].float()
        return flat.reshape(shape)


def codec_of(config: CodecConfig) -> Codec | None:
    """Return the codec of ``config``; None writes arrays as they are."""
    return look_up(_CODECS, config.codec, "codec")(config)


_CODECS: dict[str, Callable[[CodecConfig], Codec | None]] = {
    "none": lambda config: None,
    "fp16": lambda config: Fp16(),
    "int8": lambda config: Int8(),
    "int4": lambda config: Int4(),
    "int3": lambda config: INT3,
    "ternary": lambda config: TERNARY,
    "top_k": lambda config: TopK(config.density),
}


def is_state(name: str, array: Tensor) -> bool:
    """Return whether ``array`` is no trained weight: a BatchNorm statistic, or not floating."""
    return not array.is_floating_point() or name.rpartition(".")[2] in _BUFFERS


def codec_for(name: str, array: Tensor, codec: Codec | None) -> Codec | None:
    """Return ``codec`` where it makes ``array`` smaller; None where that is sent as it is."""
    if codec is None or is_state(name, array) or not array.numel():
        return None
    written = sum(
        shape.numel() * dtype.itemsize for shape, dtype in codec.parts(array.shape).values()
    )
    return codec if written < array.numel() * array.element_size() else None


def _quantize(array: Tensor, largest: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return float codes [output channels, values], at most ``largest`` in size, and the scales."""
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    scales = rows.abs().amax(dim=1) / largest
    exact = rows / torch.where(scales > 0, scales, torch.ones_like(scales))[:, None]
    drawn = torch.rand(rows.shape, generator=generator)
    return (exact + drawn).floor().clamp(-largest, largest), scales


def _to_fp16(array: Tensor) -> Tensor:
    return array.clamp(-_LARGEST_FP16, _LARGEST_FP16).half()


def _index_dtype(shape: Size) -> torch.dtype:
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if shape.numel() - 1 <= torch.iinfo(dtype).max:
            return dtype
    return torch.int64
