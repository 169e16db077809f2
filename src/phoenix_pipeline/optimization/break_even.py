"""``compile: auto``: from how much work on compiling a network pays for itself (docs/speed.md)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BreakEven:
    """``least``: calls by kind of device from which compiling pays; None or missing: never."""

    parameter: str
    calls: str
    least: Mapping[str, int | None]

    def pays(self, calls: int, device: str, why_not: str | None = None) -> bool:
        """Return whether compiling pays for ``calls``, and log why; ``why_not`` rules it out."""
        least = self.least.get(device)
        chosen = why_not is None and least is not None and calls >= least
        logger.info(
            "%s: auto chooses %s for %s %s on %s: %s",
            self.parameter,
            str(chosen).lower(),
            f"{calls:,}",
            self.calls,
            device,
            why_not or self._reason(device),
        )
        return chosen

    def _reason(self, device: str) -> str:
        if device not in self.least:
            return "compiling was not measured there"
        least = self.least[device]
        return "compiling does not pay there" if least is None else f"it pays from {least:,} on"


# Measured (docs/speed.md). cuda: on an H200 a step of 128 images takes 16 ms less, and compiling
# 80 s of which the cores are busy.
TRAINING = BreakEven("training.compile", "steps", {"cpu": 15_000, "cuda": 5_000})
# Passes of a batch, measured at 500 images. On a CPU what sampling does by itself is the faster.
SAMPLING = BreakEven("sampling.compile", "passes", {"cpu": None, "cuda": 1_000})
