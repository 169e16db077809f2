"""The metrics and feature spaces that there are: one table, made of what the modules list.

A module of this package, one that a user's package names as an entry point of the group
:data:`ENTRY_POINTS`, or one of ``run.extensions`` may list metrics in ``SCORES`` and feature spaces
in ``FEATURE_SPACES``.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from importlib import metadata
from types import ModuleType

import torch

from phoenix_pipeline import metrics
from phoenix_pipeline.config import EXTRACTORS, EvaluationConfig
from phoenix_pipeline.config.base import AUTO
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor, FeatureSpace, SpaceInputs
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.metric import ClassScores, FeatureScores, Metric
from phoenix_pipeline.registry import extension_modules, look_up

ENTRY_POINTS = "phoenix_pipeline.metrics"
_PREFIX = "fid_"
# Measured by the model that was averaged from those of clients; the rest of the name is a metric's.
FINAL_AVERAGE = "final_average."


@cache
def modules() -> tuple[ModuleType, ...]:
    """Return the modules of this package, by name, and then those of users' packages."""
    names = sorted(m.name for m in pkgutil.walk_packages(metrics.__path__, f"{metrics.__name__}."))
    own = [importlib.import_module(name) for name in names]
    installed = (entry.load() for entry in metadata.entry_points(group=ENTRY_POINTS))
    return (*own, *installed, *extension_modules())


def feature_scores() -> tuple[FeatureScores, ...]:
    """Return what is measured in each feature space, in the order of the headline."""

    def place(scores: FeatureScores) -> int:
        headline = scores.metrics[0].headline
        return headline.place if headline else 1000

    found = [item for item in _listed("SCORES") if isinstance(item, FeatureScores)]
    return tuple(sorted(found, key=place))


def class_scores() -> tuple[ClassScores, ...]:
    """Return what is measured by the label judge."""
    return tuple(item for item in _listed("SCORES") if isinstance(item, ClassScores))


@cache
def feature_spaces() -> dict[str, FeatureSpace]:
    """Return the feature spaces by name, the most telling first."""
    found = [item for item in _listed("FEATURE_SPACES") if isinstance(item, FeatureSpace)]
    return {space.name: space for space in sorted(found, key=lambda space: space.rank)}


def extractor_spaces() -> dict[str, FeatureSpace]:
    """Return the feature spaces by what settings call them, such as ``fid_pixels``."""
    return {_PREFIX + name: space for name, space in feature_spaces().items()}


def available_extractors(
    config: EvaluationConfig,
    channels: int,
    image_size: int,
    judge: LabelJudge | None,
    device: torch.device,
) -> tuple[list[FeatureExtractor], dict[str, str]]:
    """Return extractors that can be had, why others not; raises SettingsError, CheckpointError."""
    check_extractors(config)
    inputs = SpaceInputs(config, channels, image_size, judge, device)
    spaces = extractor_spaces()
    found: list[FeatureExtractor] = []
    skipped: dict[str, str] = {}
    for name in EXTRACTORS if config.extractors == AUTO else config.extractors:
        built = spaces[name].build(inputs)
        if isinstance(built, str):
            skipped[name] = built
        else:
            found.append(built)
    return found, skipped


def check_extractors(config: EvaluationConfig) -> None:
    """Raise SettingsError for extractors that are unknown or not installed; lists the others."""
    if config.extractors == AUTO:
        return
    spaces = extractor_spaces()
    for name in config.extractors:
        if missing := look_up(spaces, name, "evaluation.extractors").missing():
            rest = ", ".join(other for other, space in spaces.items() if not space.missing())
            raise SettingsError(
                f"evaluation.extractors has {name!r}, but {missing}; install it, or choose among "
                f"{rest}, or leave evaluation.extractors at {AUTO!r}, which takes what there is"
            )


@cache
def all_metrics() -> tuple[Metric, ...]:
    """Return every column, or beginning of columns, that a component of this package lists."""
    found: list[Metric] = []
    for item in _listed("SCORES"):
        if isinstance(item, FeatureScores):
            found += [*item.metrics, *([item.largest] if item.largest else [])]
        elif isinstance(item, ClassScores):
            found += item.metrics
        elif isinstance(item, Metric):
            found.append(item)
    return tuple(found)


def space_of(name: str) -> FeatureSpace | None:
    """Return the feature space that a column is taken in; None for one without."""
    found = [space for space in feature_spaces().values() if name.endswith(f"_{space.name}")]
    return max(found, key=lambda space: len(space.name), default=None)


def describe(name: str, further: Iterable[Metric] = ()) -> Metric | None:
    """Return the column ``name``, also ``final_average.``; None if nobody lists it."""
    if name.startswith(FINAL_AVERAGE):
        own = describe(name.removeprefix(FINAL_AVERAGE), further)
        return own and replace(own, name=name, label=f"{own.label} of the average", headline=None)
    found = [metric for metric in (*all_metrics(), *further) if metric.describes(name)]
    if not found:
        return None
    metric = max(found, key=lambda metric: len(metric.name))
    if name == metric.name:
        return metric
    if metric.variant is not None:
        return replace(metric, name=name, space=metric.variant(name.removeprefix(metric.name)))
    space = space_of(name)
    return replace(metric, name=name, space=space.label if space else "")


def _listed(attribute: str) -> Iterator[object]:
    for module in modules():
        yield from getattr(module, attribute, ())
