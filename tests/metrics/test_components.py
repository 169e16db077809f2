"""A metric and a feature space of a user's package, in one file, and nothing else to edit."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics import components
from phoenix_pipeline.metrics.components import available_extractors, check_extractors
from phoenix_pipeline.metrics.reference import build_reference
from phoenix_pipeline.metrics.scores import Yardstick, score_real_images, score_samples
from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.comparison import compare_arms, format_table, headline_columns
from tests.written import arm_metrics, scored_arms

FILE = """
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor, FeatureSpace
from phoenix_pipeline.metrics.metric import FIDELITY, FeatureScores, Headline, Metric


def build(inputs):
    if inputs.channels == 3:
        return "it takes grey images"
    return FeatureExtractor("fid_rows", 8, "means of rows", "0", inputs.device,
                            lambda images: images.float().mean(dim=(1, 3)))


def measure(inputs):
    difference = inputs.features.mean(axis=0) - inputs.reference.features.mean(axis=0)
    return (float((difference ** 2).sum()),)


FEATURE_SPACES = (FeatureSpace("rows", "rows", rank=5, build=build),)
SCORES = (
    FeatureScores((Metric("offset_", "Offset", "distance of the means", "lower", FIDELITY,
                          headline=Headline(5, keep=20)),), measure),
)
"""
CPU = torch.device("cpu")
CONFIG = EvaluationConfig(
    extractors=("fid_rows", "fid_pixels"), kid_subsets=1, kid_subset_size=8, nearest_k=2
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module outside of the project that an entry point names."""
    (tmp_path / "my_scores.py").write_text(FILE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("mine", "my_scores", components.ENTRY_POINTS)
    monkeypatch.setattr(
        components.metadata, "entry_points", lambda group: [entry] if "metrics" in group else []
    )
    caches = (components.modules, components.feature_spaces, components.all_metrics)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()
    sys.modules.pop("my_scores", None)


def images(count: int, level: int) -> ImageSet:
    rng = np.random.default_rng(level)
    return ImageSet(rng.integers(level, level + 60, (count, 1, 8, 8), dtype=np.uint8))


@pytest.mark.usefixtures("installed")
def test_it_is_measured_in_every_space_and_leads_the_table() -> None:
    train, test = images(60, 0), images(40, 0)
    found, skipped = available_extractors(CONFIG, 1, 8, None, CPU)
    assert [extractor.name for extractor in found] == ["fid_rows", "fid_pixels"]
    assert skipped == {}
    references = {e.name: build_reference(e, train, test, CONFIG) for e in found}
    samples = images(30, 100).images
    held = Yardstick(None, found, references, CONFIG)
    scores = score_samples(samples, held, seed=0).scores
    rows = samples.mean(axis=(1, 3)).mean(axis=0) - train.images.mean(axis=(1, 3)).mean(axis=0)
    assert scores["offset_rows"] == pytest.approx((rows**2).sum(), rel=1e-4)
    assert {"fid_rows", "kid_rows", "precision_rows", "offset_pixels"} <= set(scores)
    floor = score_real_images(test.images, held, seed=0).scores
    assert floor["offset_rows"] < scores["offset_rows"]
    table = compare_arms(scored_arms({"fedavg": arm_metrics(scores)}), floor)
    assert headline_columns(table)[:3] == ["fid_rows", "fid_pixels", "offset_rows"]
    assert "Offset" in format_table(table, width=60)
    assert describe_metric("offset_rows").title == "Offset rows ↓"
    assert describe_metric("final_average.offset_rows").label == "Offset of the average"


@pytest.mark.usefixtures("installed")
def test_a_space_that_cannot_be_had_says_why() -> None:
    found, skipped = available_extractors(CONFIG, 3, 8, None, CPU)
    assert [extractor.name for extractor in found] == ["fid_pixels"]
    assert skipped == {"fid_rows": "it takes grey images"}


def test_an_unknown_space_is_an_error_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="extractors is 'fid_rows'; allowed are") as e:
        check_extractors(CONFIG)
    assert "fid_inception_v3, fid_classifier, fid_efficientnet_lite0, fid_pixels" in str(e.value)


def test_columns_of_one_beginning_are_told_apart() -> None:
    assert describe_metric("membership_auc").space == ""
    assert describe_metric("membership_auc_low").label == "AUC from"
    assert describe_metric("membership_auc_pia").space == "PIA"
    assert describe_metric("utility").better == "higher"
    assert describe_metric("utility_real").better is None
    assert describe_metric("precisely").better is None
