"""One column of the comparison: how it is called, which way is better, and its group."""

from dataclasses import dataclass
from typing import Literal

from phoenix_pipeline.reporting.privacy_vocabulary import PRIVACY

FIDELITY, COVERAGE, COPIES = "Fidelity", "Coverage", "Memorisation"
COST, OTHER = "Work and traffic", "Other"
GROUPS = (FIDELITY, COVERAGE, COPIES, PRIVACY, COST, OTHER)
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    """One column: ``label`` and ``space`` for its header, ``phrase`` for a sentence about it.

    ``credible``: values outside of this range are marked wherever they are written; None: none are.
    """

    name: str
    label: str
    space: str
    better: Better | None
    group: str
    phrase: str
    kind: Literal["score", "count", "bytes", "seconds", "text"] = "score"
    credible: tuple[float, float] | None = None

    @property
    def arrow(self) -> str:
        """Return the direction that is better as an arrow; empty where there is none."""
        return {"lower": "↓", "higher": "↑", None: ""}[self.better]

    @property
    def title(self) -> str:
        """Return label, feature space and arrow in one line."""
        return " ".join(part for part in (self.label, self.space, self.arrow) if part)
