import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.reporting.comparison import compare_arms
from phoenix_pipeline.reporting.score_figures import draw_heatmap, draw_scores
from tests.written import scored_arms


def test_each_bar_is_the_arm_and_the_dashed_line_the_floor(metrics, rounds, floor) -> None:
    figure = draw_scores(compare_arms(scored_arms(metrics, {"fedavg": rounds}), floor))
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.axison}
    assert set(panels) == {"FID pixels ↓", "Coverage pixels ↑", "KL ↓", "Traffic ↓"}
    fid = panels["FID pixels ↓"]
    assert [bar.get_width() for bar in fid.patches] == [5.25, 2.5, 31.5]
    assert list(fid.get_lines()[0].get_xdata()) == [0.75, 0.75]
    assert [label.get_text() for label in fid.get_yticklabels()] == [
        "fedavg",
        "centralized",
        "dcgan",
    ]
    assert [t.get_text() for t in panels["Coverage pixels ↑"].texts] == [
        "0.500",
        "0.875",
        "not measured",
    ]
    assert not panels["KL ↓"].get_lines()


def test_heatmap_shows_mean_and_spread_of_the_seeds_and_what_was_not_run() -> None:
    table = pd.DataFrame(
        [
            {"beta": 0.1, "alpha": 0.5, "fid_pixels": 3.0},
            {"beta": 0.1, "alpha": 0.5, "fid_pixels": 5.0},
            {"beta": 0.1, "alpha": 1.0, "fid_pixels": 2.0},
            {"beta": 0.2, "alpha": 0.5, "fid_pixels": 8.0},
        ]
    )
    axes = draw_heatmap(table, "beta", "alpha", "fid_pixels").axes[0]
    cells = axes.images[0].get_array()
    assert cells[0, 0] == 4.0 and cells[0, 1] == 2.0 and cells[1, 0] == 8.0
    assert cells.mask.tolist() == [[False, False], [False, True]]
    assert [t.get_text() for t in axes.texts] == ["4\n± 1", "2", "8", "not run"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0.1", "0.2"]
    assert axes.get_title(loc="left") == "FID pixels ↓"


@pytest.mark.parametrize("name", ["fid_pixels", "coverage_pixels"])
def test_dark_cells_are_the_better_ones(name: str) -> None:
    table = pd.DataFrame({"k": [1, 2], "layers": ["a", "a"], name: [0.1, 0.9]})
    image = draw_heatmap(table, "k", "layers", name).axes[0].images[0]
    low, high = (float(np.mean(image.cmap(image.norm(v))[:3])) for v in (0.1, 0.9))
    assert (low < high) == (name == "fid_pixels")


def test_heatmap_names_the_columns_that_there_are() -> None:
    table = pd.DataFrame({"beta": [0.1], "alpha": [0.5], "fid_pixels": [1.0]})
    with pytest.raises(DataError, match=r"'gamma'.*it has beta, alpha, fid_pixels"):
        draw_heatmap(table, "gamma", "alpha", "fid_pixels")
