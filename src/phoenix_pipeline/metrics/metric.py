"""One column of results: how it is called, which way is better, and where it is shown.

A component (a module of ``metrics``) lists its own in ``SCORES``, beside the function that measures
them; ``metrics.components`` finds them. Nothing else has to know a metric's name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from phoenix_pipeline.config import EvaluationConfig
    from phoenix_pipeline.metrics.class_histogram import ClassHistogram
    from phoenix_pipeline.metrics.reference import ReferenceStatistics

FIDELITY, COVERAGE, COPIES = "Fidelity", "Coverage", "Memorisation"
PRIVACY, COST, OTHER = "Privacy, attacked", "Work and traffic", "Other"
GROUPS = (FIDELITY, COVERAGE, COPIES, PRIVACY, COST, OTHER)
Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Headline:
    """That a column is worth a first look.

    ``place``: in reading order. ``keep``: how long it stays in a terminal that is too narrow, the
    higher the longer. ``every_space``: shown in each feature space, not in the most telling alone.
    """

    place: int
    keep: int
    every_space: bool = False


@dataclass(frozen=True)
class Metric:
    """One column, or several whose names begin alike.

    ``name``: of the column; one that ends in ``_`` is the beginning of a column for each feature
    space. ``label`` and ``space``: the header.
    ``phrase``: what it means, without a full stop. ``better``: None where neither way is.
    ``kind``: how it is written. ``variant``: where there are columns of longer names, what their
    rest is called in headers, such as an attack. ``credible``: values outside of this range are
    marked wherever they are written.
    """

    name: str
    label: str
    phrase: str
    better: Better | None = None
    group: str = OTHER
    kind: Literal["score", "count", "bytes", "seconds", "text"] = "score"
    space: str = ""
    variant: Callable[[str], str] | None = None
    headline: Headline | None = None
    credible: tuple[float, float] | None = None

    @property
    def arrow(self) -> str:
        """Return the direction that is better as an arrow; empty where there is none."""
        return {"lower": "↓", "higher": "↑", None: ""}[self.better]

    @property
    def title(self) -> str:
        """Return label, feature space and arrow in one line."""
        return " ".join(part for part in (self.label, self.space, self.arrow) if part)

    def describes(self, name: str) -> bool:
        """Whether this is the column ``name``, or it is one of these."""
        several = self.in_spaces or self.variant is not None
        return name == self.name or (several and name.startswith(self.name))

    @property
    def in_spaces(self) -> bool:
        """Whether there is a column for each feature space."""
        return self.name.endswith("_")


@dataclass(frozen=True)
class FeatureInputs:
    """Samples in one feature space: ``features`` [N, D], and real images to hold them against.

    ``labels``: int64 [N], the classes of the samples, as asked for or else the judge's guesses;
    ``reference_labels``: those of the reference's ``features``. None where they are not known.
    """

    features: np.ndarray
    reference: "ReferenceStatistics"
    config: "EvaluationConfig"
    seed: int
    labels: np.ndarray | None = None
    reference_labels: np.ndarray | None = None


@dataclass(frozen=True)
class FeatureScores:
    """What is measured in each feature space.

    ``metrics``: named by a beginning such as ``kid_``. ``measure``: one value for each; a
    SettingsError is the reason why these images do not allow it. ``not_of_real_images``: why real
    images have no such score, where they have none. ``largest``: the largest value over the
    spaces, as a column of its own.
    """

    metrics: tuple[Metric, ...]
    measure: Callable[[FeatureInputs], Sequence[float]]
    not_of_real_images: str = ""
    largest: Metric | None = None


@dataclass(frozen=True)
class ClassInputs:
    """The judge's ``probabilities`` [N, classes] of samples, and the histogram of its verdicts.

    ``asked``: int64 [N], the classes that a conditional model was to draw; None for any other.
    """

    probabilities: np.ndarray
    histogram: "ClassHistogram"
    seed: int
    asked: np.ndarray | None = None


@dataclass(frozen=True)
class ClassScores:
    """What the label judge measures, ``of_labelled``: of conditional models alone."""

    metrics: tuple[Metric, ...]
    measure: Callable[[ClassInputs], Sequence[float]]
    of_labelled: bool = False
