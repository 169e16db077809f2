import pandas as pd
import pytest

from phoenix_pipeline.config import EXTRACTORS
from phoenix_pipeline.metrics.components import all_metrics
from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.formatting import format_bytes, format_values


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("fid_inception_v3", "FID Inception-v3 ↓"),
        ("kid_efficientnet_lite0", "KID EffNet ↓"),
        ("recall_classifier", "Recall classifier ↑"),
        ("class_entropy", "Entropy ↑"),
        ("class_kl", "KL ↓"),
        ("memorized_share", "Copies ↓"),
        ("bytes_per_round", "Traffic per round ↓"),
        ("final_average.recall_pixels", "Recall of the average pixels ↑"),
        ("num_clients", "Models"),
        ("membership_auc_pia", "AUC PIA ↓"),
        ("membership_auc_loss_worst_client", "AUC loss, worst client ↓"),
        ("membership_auc_blind", "AUC no model"),
        ("membership_tpr_high", "TPR to"),
        ("final_average.membership_auc", "AUC of the average ↓"),
        ("something_new", "something new"),
    ],
)
def test_titles_say_which_way_is_better(name: str, title: str) -> None:
    assert describe_metric(name).title == title


def test_every_metric_of_a_component_has_a_phrase_and_a_name_of_its_own() -> None:
    names = [metric.name for metric in all_metrics()]
    assert len(names) == len(set(names)) > 20
    assert [metric.name for metric in all_metrics() if not metric.phrase] == []
    assert [name for name in EXTRACTORS if not describe_metric(name).space] == []


def test_one_column_has_one_number_of_decimals() -> None:
    fid, count = describe_metric("fid_pixels"), describe_metric("images_trained")
    assert format_values([312.4321, 3.2149, 5.0, None], fid) == ["312.43", "3.21", "5.00", ""]
    assert format_values([0.0123, 0.0004], describe_metric("kid_pixels")) == ["0.0123", "0.0004"]
    assert format_values([10.0, 9.0], describe_metric("classes_covered")) == ["10", "9"]
    assert format_values([68976, pd.NA], count) == ["68,976", ""]
    assert format_values([0.1234], fid, like=[3.5]) == ["0.12"]


def test_times_and_texts() -> None:
    assert format_values([79.24, 600.0, 9000.0], describe_metric("train_seconds")) == [
        "79.2 s",
        "10.0 min",
        "2.5 h",
    ]
    assert format_values(["ddim", None, ""], describe_metric("sampler")) == ["ddim", "", ""]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (61_440_000, "61.4 MB"), (2.5e11, "250 GB")],
)
def test_bytes_have_three_significant_digits(value: float, text: str) -> None:
    assert format_bytes(value) == text
