import numpy as np
import pytest
from PIL import Image

from phoenix_pipeline.reporting.sample_figures import draw_class_histograms, draw_grids


def test_histogram_bars_are_the_shares_and_curves_are_sorted(metrics) -> None:
    figure = draw_class_histograms(metrics, training_shares=[0.45, 0.55])
    *panels, curves = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["fedavg", "centralized", "dcgan"]
    assert [bar.get_height() for bar in panels[1].patches] == [0.4, 0.6]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["cat", "dog"]
    drawn = [list(line.get_ydata()) for line in curves.get_lines()]
    assert drawn == [[0.7, 0.3], [0.6, 0.4], [1.0, 0.0], [0.55, 0.45]]
    assert [t.get_text() for t in figure.legends[0].get_texts()][-1] == "training images"
    assert "right on 98.6% of real test images" in curves.get_xlabel()


def test_arms_that_were_not_judged_are_left_out(metrics) -> None:
    metrics["fedavg"]["class_histogram"] = None
    *panels, curves = draw_class_histograms(metrics).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["centralized", "dcgan"]
    assert len(curves.get_lines()) == 2


def test_images_without_labels_give_a_sentence_instead_of_bars(metrics) -> None:
    figure = draw_class_histograms({arm: {"class_histogram": None} for arm in metrics})
    assert figure.axes == []
    assert "no labels" in figure.texts[0].get_text()


def test_grids_stand_side_by_side_with_their_pixels_untouched() -> None:
    color = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    grids = {"fedavg": color, "dcgan": Image.fromarray(color[..., 0])}
    panels = draw_grids(grids).axes
    assert [axes.get_title() for axes in panels] == ["fedavg", "dcgan"]
    np.testing.assert_array_equal(panels[0].images[0].get_array(), color)
    np.testing.assert_array_equal(panels[1].images[0].get_array(), color[..., 0])
    assert panels[1].images[0].get_clim() == (0, 255)


@pytest.mark.parametrize(("count", "cells"), [(1, 1), (5, 5), (6, 10)])
def test_more_than_five_grids_take_another_row(count: int, cells: int) -> None:
    grid = np.zeros((2, 2), dtype=np.uint8)
    assert len(draw_grids({f"arm {i}": grid for i in range(count)}).axes) == cells
