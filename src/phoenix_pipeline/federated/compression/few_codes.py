"""Three or seven codes: the nearest one, with the scale of each channel that loses least.

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

_SEARCH_STEPS = 4


@dataclass(frozen=True)
class FewCodes:
    """``value = code x scale``: a scale per index of the first axis, codes up to ``largest``.

    Codes, plus ``largest``, are digits of base ``base``: ``group`` of them make a number of
    ``width`` bytes, the first digit and the first byte being the lowest. ``normal_scale`` is the
    best scale of a normal distribution, in deviations: where the search for the scale begins.
    """

    name: str
    largest: int
    base: int
    group: int
    width: int
    normal_scale: float

    def parts(self, shape: Size) -> Parts:
        """Return the bytes, and the scales [output channels]."""
        channels = shape[0] if len(shape) > 1 else 1
        packed = Size([-(-shape.numel() // self.group) * self.width])
        return {"codes": (packed, torch.uint8), "scales": (Size([channels]), torch.float32)}

    def encode(self, array: Tensor, generator: Generator) -> dict[str, Tensor]:
        """Round to the nearest code; nothing is random."""
        rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1).float()
        codes, scales = self._fit(rows)
        digits = torch.full((-(-array.numel() // self.group), self.group), self.largest).int()
        digits.view(-1)[: array.numel()] = (codes.reshape(-1) + self.largest).int()
        numbers = (digits * self._places).sum(1, dtype=torch.int32)
        packed = (numbers[:, None] >> self._shifts) & 255
        return {"codes": packed.to(torch.uint8).reshape(-1), "scales": scales}

    def decode(self, parts: Mapping[str, Tensor], shape: Size) -> Tensor:
        """Multiply; codes that no encoder writes, scales below 0 and other padding are refused."""
        scales, packed = parts["scales"], parts["codes"].view(-1, self.width).int()
        numbers = (packed << self._shifts).sum(1, dtype=torch.int32)
        digits = numbers[:, None] // self._places % self.base
        codes = digits.reshape(-1) - self.largest
        wrong = (codes > self.largest).any() or codes[shape.numel() :].any() or (scales < 0).any()
        if bool(wrong or (numbers >= self.base**self.group).any()):
            raise FederationError(
                f"{self.name} codes must be {-self.largest}..{self.largest}, padded by 0, and "
                "scales 0 or more"
            )
        own = codes[: shape.numel()].float()
        return (own.reshape(len(scales), -1) * scales[:, None]).reshape(shape)

    def _fit(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return float codes [channels, values] and scales [channels] of least squared error."""
        scales = self.normal_scale * rows.square().mean(dim=1).sqrt()
        for _ in range(_SEARCH_STEPS):
            codes = self._nearest(rows, scales)
            scales = (rows * codes).sum(1) / codes.square().sum(1).clamp_min(1.0)
        return self._nearest(rows, scales), scales

    def _nearest(self, rows: Tensor, scales: Tensor) -> Tensor:
        safe = torch.where(scales > 0, scales, torch.ones_like(scales))
        return (rows / safe[:, None]).round_().clamp_(-self.largest, self.largest)

    @property
    def _places(self) -> Tensor:
        return self.base ** torch.arange(self.group, dtype=torch.int32)

    @property
    def _shifts(self) -> Tensor:
        return 8 * torch.arange(self.width, dtype=torch.int32)


TERNARY = FewCodes("ternary", largest=1, base=3, group=5, width=1, normal_scale=1.22)
INT3 = FewCodes("int3", largest=3, base=8, group=8, width=3, normal_scale=0.65)
