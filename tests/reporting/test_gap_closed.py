"""The share of the gap between federated averaging and the ceiling, by hand."""

from typing import Any

import pandas as pd
import pytest

from phoenix_pipeline.reporting.comparison import FLOOR_NAME, compare_arms, headline_columns


def compare(floor: dict[str, float] | None = None, **fids: dict[str, float]) -> pd.DataFrame:
    """Compare arms that have nothing but Frechet distances, by feature space."""
    metrics: dict[str, Any] = {
        arm: {"scores": {f"fid_{space}": value for space, value in own.items()}}
        for arm, own in fids.items()
    }
    return compare_arms(metrics, {}, floor).set_index("arm")


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


@pytest.mark.parametrize("default", [2.0, 1.5])
def test_no_gap_no_share(default: float) -> None:
    table = compare(centralized={"pixels": 2.0}, fedavg={"pixels": default}, dcgan={"pixels": 1.0})
    assert "gap_closed_pixels" not in table


@pytest.mark.parametrize("missing", ["fedavg", "centralized"])
def test_both_ends_are_needed(missing: str) -> None:
    arms = {"centralized": {"pixels": 2.0}, "fedavg": {"pixels": 6.0}, "dcgan": {"pixels": 1.0}}
    arms.pop(missing)
    assert "gap_closed_pixels" not in compare(None, **arms)
