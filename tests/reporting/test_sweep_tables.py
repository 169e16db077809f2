"""Tables of a sweep, by hand-computed means and spreads."""

import pandas as pd
import pytest

from phoenix_pipeline.reporting.sweep_tables import (
    cell_table,
    format_summary,
    join_cells,
    summarize,
    with_spread,
)
from tests.written import scored_arms


@pytest.fixture
def table() -> pd.DataFrame:
    """Two betas, two seeds, one arm."""
    return pd.DataFrame(
        {
            "beta": [0.1, 0.1, 0.2, 0.2],
            "run.seed": [0, 1, 0, 1],
            "arm": ["fedavg"] * 4,
            "fid_pixels": [1.0, 3.0, 0.5, 0.5],
        }
    )


def test_a_cell_has_its_name_and_axes_in_front(
    metrics: dict[str, dict], rounds: pd.DataFrame
) -> None:
    part = cell_table("beta=0.1", {"beta": 0.1}, scored_arms(metrics, {"fedavg": rounds}))
    assert list(part.columns[:3]) == ["cell", "beta", "arm"]
    assert list(part["cell"]) == ["beta=0.1"] * 3
    assert part.set_index("arm").loc["fedavg", "bytes_up"] == 500


def test_an_axis_takes_the_place_of_a_condition_of_its_name(
    metrics: dict[str, dict], rounds: pd.DataFrame
) -> None:
    for scores in metrics.values():
        scores["conditions"]["sampler"] = "dpm_solver++"
    part = cell_table("sampler=few", {"sampler": "few"}, scored_arms(metrics, {"fedavg": rounds}))
    assert list(part.columns).count("sampler") == 1
    assert set(part["sampler"]) == {"few"}


def test_cells_with_other_scores_are_joined() -> None:
    first = pd.DataFrame({"cell": ["a"], "arm": ["fedavg"], "x": [1.0], "y": [None]})
    second = pd.DataFrame({"cell": ["b"], "arm": ["fedavg"], "y": [2.0]})
    joined = join_cells([first, second])
    assert list(joined.columns) == ["cell", "arm", "x", "y"]
    assert joined["x"].isna().tolist() == [False, True]
    assert joined["y"].tolist()[1] == 2.0


def test_summaries_are_means_and_sample_deviations(table: pd.DataFrame) -> None:
    summary = summarize(table, ["beta"], ["fid_pixels", "not_there"])
    assert list(summary.columns) == ["beta", "arm", "runs", "fid_pixels", "fid_pixels_std"]
    assert summary["runs"].tolist() == [2, 2]
    assert summary["fid_pixels"].tolist() == [2.0, 0.5]
    assert summary["fid_pixels_std"].tolist() == pytest.approx([2**0.5, 0.0])


def test_one_run_has_no_spread(table: pd.DataFrame) -> None:
    summary = summarize(table, ["beta", "run.seed"], ["fid_pixels"])
    assert summary["fid_pixels_std"].isna().all()
    assert "±" not in format_summary(summary)


def test_the_text_has_a_line_per_row_and_shows_the_better_way(table: pd.DataFrame) -> None:
    lines = format_summary(summarize(table, ["beta"], ["fid_pixels"])).splitlines()
    assert len(lines) == 4
    assert "FID pixels ↓" in lines[0]
    assert lines[2].split() == ["0.1", "fedavg", "2", "2.000", "±", "1.414"]


def test_a_spread_has_the_decimals_of_its_mean() -> None:
    assert with_spread([20.5, None], [0.123, None], "fid_pixels") == ["20.5 ± 0.1", ""]
