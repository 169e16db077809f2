"""Two or three bits a value: nearest codes, with the scale of each channel that loses least.

Stochastic rounding to so few codes is noisier than the update itself. The nearest code is not right
on average, but it never loses more than it keeps, so error feedback sends the rest later (EF-SGD,
Karimireddy et al., arXiv 1901.09847). Scales follow Lloyd's algorithm (1982).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Size, Tensor

from phoenix_pipeline.errors import FederationError

Parts = dict[str, tuple[Size, torch.dtype]]

# Codes that fill whole bytes: 8 of three bits in three bytes, 4 of two bits in one.
_GROUPS = {2: 4, 3: 8}
# The least squares scale of a normal distribution, in deviations: where the search begins.
_NORMAL_SCALE = {2: 1.22, 3: 0.65}
_SEARCH_STEPS = 4


@dataclass(frozen=True)
class FewBits:
    """``value = code x scale``: codes of ``bits`` bits, a scale per index of the first axis."""

    bits: int

    @property
    def largest(self) -> int:
        """The largest code: 1 of two bits, 3 of three."""
        return 2 ** (self.bits - 1) - 1

    def parts(self, shape: Size) -> Parts:
        """Return the bytes, and the scales [output channels]."""
        channels = shape[0] if len(shape) > 1 else 1
        group = _GROUPS[self.bits]
        packed = Size([-(-shape.numel() // group) * group * self.bits // 8])
        return {"codes": (packed, torch.uint8), "scales": (Size([channels]), torch.float32)}

    def encode(self, array: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Round to the nearest code; nothing is random."""
        rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1).float()
        codes, scales = self._fit(rows)
        shifted = (codes.reshape(-1) + self.largest).to(torch.int32)
        group = _GROUPS[self.bits]
        padded = torch.full((-(-shifted.numel() // group) * group,), self.largest).int()
        padded[: shifted.numel()] = shifted
        return {"codes": self._pack(padded.view(-1, group)), "scales": scales}

    def decode(self, parts: Mapping[str, Tensor], shape: Size) -> Tensor:
        """Multiply; codes that no encoder writes, scales below 0 and other padding are refused."""
        scales, codes = parts["scales"], self._unpack(parts["codes"]) - self.largest
        padding = codes[shape.numel() :]
        if bool((codes > self.largest).any() or padding.any() or (scales < 0).any()):
            raise FederationError(
                f"int{self.bits} codes must be {-self.largest}..{self.largest}, padded by 0, and "
                "scales 0 or more"
            )
        own = codes[: shape.numel()].float()
        return (own.reshape(len(scales), -1) * scales[:, None]).reshape(shape)

    def _fit(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return float codes [channels, values] and scales [channels] of least squared error."""
        scales = _NORMAL_SCALE[self.bits] * rows.square().mean(dim=1).sqrt()
        for _ in range(_SEARCH_STEPS):
            codes = self._nearest(rows, scales)
            scales = (rows * codes).sum(1) / codes.square().sum(1).clamp_min(1.0)
        return self._nearest(rows, scales), scales

    def _nearest(self, rows: Tensor, scales: Tensor) -> Tensor:
        safe = torch.where(scales > 0, scales, torch.ones_like(scales))
        return (rows / safe[:, None]).round_().clamp_(-self.largest, self.largest)

    def _pack(self, groups: Tensor) -> Tensor:
        """Return the bytes of int32 codes [groups, codes], the first in the lowest bits."""
        shifts = torch.arange(groups.shape[1], dtype=torch.int32) * self.bits
        words = (groups << shifts).sum(1, dtype=torch.int32)
        wide = torch.arange(groups.shape[1] * self.bits // 8, dtype=torch.int32) * 8
        return ((words[:, None] >> wide) & 255).to(torch.uint8).reshape(-1)

    def _unpack(self, packed: Tensor) -> Tensor:
        """Return the int32 codes of :meth:`_pack`, in one row."""
        group = _GROUPS[self.bits]
        wide = torch.arange(group * self.bits // 8, dtype=torch.int32) * 8
        words = (packed.view(-1, len(wide)).to(torch.int32) << wide).sum(1, dtype=torch.int32)
        shifts = torch.arange(group, dtype=torch.int32) * self.bits
        return ((words[:, None] >> shifts) & (2**self.bits - 1)).reshape(-1)
