"""What a feature space is: a module of ``metrics`` lists its own in ``FEATURE_SPACES``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor

if TYPE_CHECKING:
    from phoenix_pipeline.metrics.label_judge import LabelJudge


@dataclass(frozen=True)
class SpaceInputs:
    """What an extractor may be built from; images are uint8 [N, channels, size, size]."""

    config: EvaluationConfig
    channels: int
    image_size: int
    judge: "LabelJudge | None"
    device: torch.device


@dataclass(frozen=True)
class FeatureSpace:
    """A feature space; settings and its Frechet distance call it ``fid_<name>``.

    ``label``: in headers. ``rank``: the lower the more telling. ``build``: the extractor, or the
    reason in one line why there is none. ``keep``: see ``Headline.keep``; None: as the metric says.
    ``missing``: what must be installed first, in one line; "" where nothing is missing.
    """

    name: str
    label: str
    rank: int
    build: Callable[[SpaceInputs], FeatureExtractor | str]
    keep: int | None = None
    missing: Callable[[], str] = lambda: ""
