import pandas as pd
import pytest

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.reporting.score_figures import draw_frontier, frontier_table

SCORES = ("fid_pixels",)


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        ("none", 800.0, 1.0),
        ("none", 800.0, 3.0),
        ("half", 400.0, 2.5),
        ("waste", 500.0, 2.6),
        ("eighth", 100.0, 4.0),
        ("eighth", 100.0, 4.0),
    ]
    return pd.DataFrame(rows, columns=["traffic", "bytes_total", "fid_pixels"])


def test_ratios_spreads_and_the_frontier_are_those_by_hand(table: pd.DataFrame) -> None:
    result = frontier_table(table, "traffic", "none", "bytes_total", SCORES).set_index("traffic")
    assert list(result.index) == ["eighth", "half", "waste", "none"]
    assert result["runs"].to_dict() == {"eighth": 2, "half": 1, "waste": 1, "none": 2}
    assert result["times_less"].to_dict() == {"eighth": 8.0, "half": 2.0, "waste": 1.6, "none": 1.0}
    assert result["fid_pixels_ratio"].to_dict() == {
        "eighth": 2.0,
        "half": 1.25,
        "waste": 1.3,
        "none": 1.0,
    }
    assert result.at["none", "fid_pixels_std"] == pytest.approx(2**0.5)
    assert list(result.index[result["fid_pixels_on_frontier"]]) == ["eighth", "half", "none"]


def test_the_figure_joins_the_frontier_and_names_every_value(table: pd.DataFrame) -> None:
    result = frontier_table(table, "traffic", "none", "bytes_total", SCORES)
    figure = draw_frontier(result, "traffic", "none", "bytes_total", SCORES)
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"none", "half", "waste", "eighth"}
    line = axes.lines[0]
    assert list(line.get_xdata()) == [100.0, 400.0, 800.0]
    assert list(line.get_ydata()) == [4.0, 2.5, 2.0]


def test_a_missing_baseline_or_column_is_named(table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="traffic = fp32"):
        frontier_table(table, "traffic", "fp32", "bytes_total", SCORES)
    with pytest.raises(DataError, match="fid_classifier"):
        frontier_table(table, "traffic", "none", "bytes_total", ("fid_classifier",))
