"""The share of the gap between federated averaging and the ceiling, by hand."""

import pandas as pd
import pytest

from phoenix_pipeline.reporting.caveats import list_caveats
from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.comparison import FLOOR_NAME, compare_arms, headline_columns
from phoenix_pipeline.reporting.formatting import format_values
from tests.written import arm_metrics, scored_arms


def compare(floor: dict[str, float] | None = None, **fids: dict[str, float]) -> pd.DataFrame:
    """Compare arms that have nothing but Frechet distances, by feature space."""
    metrics = {
        arm: arm_metrics({f"fid_{space}": value for space, value in own.items()})
        for arm, own in fids.items()
    }
    return compare_arms(scored_arms(metrics), floor).set_index("arm")


def test_shares_are_those_worked_out_by_hand() -> None:
    table = compare(
        {"fid_pixels": 0.5, "fid_classifier": 1.0},
        centralized={"pixels": 2.0, "classifier": 10.0},
        fedavg={"pixels": 6.0, "classifier": 50.0},
        data_sharing={"pixels": 5.0, "classifier": 10.0},
        dcgan={"pixels": 8.0, "classifier": 0.0},
    )
    pixels, classifier = table["gap_closed_pixels"], table["gap_closed_classifier"]
    assert (pixels["data_sharing"], pixels["dcgan"]) == (0.25, -0.5)
    assert (classifier["data_sharing"], classifier["dcgan"]) == (1.0, 1.25)
    for neither in ("centralized", "fedavg", FLOOR_NAME):
        assert pd.isna(pixels[neither]) and pd.isna(classifier[neither])


def test_the_headline_has_it_in_the_most_telling_space_only() -> None:
    table = compare(
        centralized={"pixels": 2.0, "classifier": 10.0},
        fedavg={"pixels": 6.0, "classifier": 50.0},
        dcgan={"pixels": 8.0, "classifier": 0.0},
    )
    assert headline_columns(table.reset_index()) == [
        "fid_classifier",
        "fid_pixels",
        "gap_closed_classifier",
    ]


def test_an_arm_without_the_distance_has_no_share() -> None:
    table = compare(centralized={"pixels": 2.0}, fedavg={"pixels": 6.0}, dcgan={"classifier": 3.0})
    assert pd.isna(table.at["dcgan", "gap_closed_pixels"])
    assert "gap_closed_classifier" not in table


@pytest.mark.parametrize("default", [2.0, 1.5, 2.1])
def test_no_gap_no_share(default: float) -> None:
    table = compare(centralized={"pixels": 2.0}, fedavg={"pixels": default}, dcgan={"pixels": 1.0})
    assert "gap_closed_pixels" not in table


@pytest.mark.parametrize("missing", ["fedavg", "centralized"])
def test_both_ends_are_needed(missing: str) -> None:
    arms = {"centralized": {"pixels": 2.0}, "fedavg": {"pixels": 6.0}, "dcgan": {"pixels": 1.0}}
    arms.pop(missing)
    assert "gap_closed_pixels" not in compare(None, **arms)


def test_an_implausible_share_is_marked_and_explained() -> None:
    table = compare(
        centralized={"pixels": 2.0, "classifier": 10.0},
        fedavg={"pixels": 6.0, "classifier": 11.0},
        data_sharing={"pixels": 12.0, "classifier": -2.6},
        dcgan={"pixels": 0.0, "classifier": 12.5},
    )
    pixels, classifier = (
        format_values(list(table[name]), describe_metric(name))
        for name in ("gap_closed_pixels", "gap_closed_classifier")
    )
    assert pixels == ["", "", "-1.50?", "1.50"]  # 1.5 and -1 are still within
    assert classifier == ["", "", "13.60?", "-1.50?"]
    (caveat,) = [text for text in list_caveats(table.reset_index()) if "gap closed" in text]
    assert "data_sharing 13.6 in classifier; dcgan -1.5 in classifier" in caveat
    assert "data_sharing -1.5 in pixels" in caveat and "dcgan 1.5" not in caveat


def test_plausible_shares_have_no_mark_and_no_caveat() -> None:
    table = compare(centralized={"pixels": 2.0}, fedavg={"pixels": 6.0}, dcgan={"pixels": 10.0})
    values = format_values(list(table["gap_closed_pixels"]), describe_metric("gap_closed_pixels"))
    assert values == ["", "", "-1"]
    assert not [text for text in list_caveats(table.reset_index()) if "gap closed" in text]
