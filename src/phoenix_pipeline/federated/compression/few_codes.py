"""Three or seven codes: the nearest one, with the scale of each channel that loses least.

Stochastic rounding to so few codes is noisier than the update itself. The nearest code is not right
on average, but it never loses more than it keeps, so error feedback sends the rest later (EF-SGD,
Karimireddy et al., arXiv 1901.09847). Scales follow Lloyd's algorithm (1982).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Size, Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.channels import Channels, num_channels, packing_of

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
        packed = Size([-(-shape.numel() // self.group) * self.width])
        scales = Size([num_channels(shape)])
        return {"codes": (packed, torch.uint8), "scales": (scales, torch.float32)}

    def encode(
        self, values: Tensor, channels: Channels, generator: Generator
    ) -> dict[str, Sequence[Tensor]]:
        """Round to the nearest code; nothing is random."""
        packing = packing_of(channels, self.group)
        codes, scales = self._fit(values, channels)
        digits = packing.pad(codes + self.largest, self.largest)
        numbers = (digits * self._places).sum(1, dtype=torch.int32)
        packed = ((numbers[:, None] >> self._shifts) & 255).to(torch.uint8).reshape(-1)
        return {
            "codes": packed.split([self.width * groups for groups in packing.groups]),
            "scales": scales.split(channels.counts),
        }

    def decode(self, parts: Mapping[str, Sequence[Tensor]], channels: Channels) -> Tensor:
        """Multiply; codes that no encoder writes, scales below 0 and other padding are refused."""
        scales = torch.cat(list(parts["scales"]))
        packed = torch.cat(list(parts["codes"])).view(-1, self.width).int()
        numbers = (packed << self._shifts).sum(1, dtype=torch.int32)
        padded = numbers[:, None] // self._places % self.base
        digits, is_padded = packing_of(channels, self.group).take(padded, self.largest)
        wrong = (digits > 2 * self.largest).any() or (numbers >= self.base**self.group).any()
        if bool(wrong or (scales < 0).any()) or not is_padded:
            raise FederationError(
                f"{self.name} codes must be {-self.largest}..{self.largest}, padded by 0, and "
                "scales 0 or more"
            )
        return (digits - self.largest).float() * channels.spread(scales)

    def _fit(self, values: Tensor, channels: Channels) -> tuple[Tensor, Tensor]:
        """Return float codes [n] and scales [channels] of least squared error."""
        squares = channels.sums(values.square()) / channels.lengths
        scales = self.normal_scale * squares.sqrt()
        for _ in range(_SEARCH_STEPS):
            codes = self._nearest(values, scales, channels)
            used = channels.sums(codes.square()).clamp_min(1.0)
            scales = channels.sums(values * codes) / used
        return self._nearest(values, scales, channels), scales

    def _nearest(self, values: Tensor, scales: Tensor, channels: Channels) -> Tensor:
        safe = channels.spread(torch.where(scales > 0, scales, torch.ones_like(scales)))
        return (values / safe).round_().clamp_(-self.largest, self.largest)

    @cached_property
    def _places(self) -> Tensor:
        return self.base ** torch.arange(self.group, dtype=torch.int32)

    @cached_property
    def _shifts(self) -> Tensor:
        return 8 * torch.arange(self.width, dtype=torch.int32)


TERNARY = FewCodes("ternary", largest=1, base=3, group=5, width=1, normal_scale=1.22)
INT3 = FewCodes("int3", largest=3, base=8, group=8, width=3, normal_scale=0.65)
