import numpy as np
import pytest
from matplotlib.colors import to_hex

from phoenix_pipeline.reporting.figure_style import ALARM, arm_styles
from phoenix_pipeline.reporting.round_figures import (
    draw_filter_decisions,
    draw_round_curves,
    summarise_rounds,
)


def test_loss_is_weighted_by_images_and_sums_are_cumulative(rounds) -> None:
    summary = summarise_rounds(rounds)
    assert list(summary["loss"]) == pytest.approx([(0.5 * 60 + 0.9 * 20) / 80, 0.3, 0.35])
    assert list(summary["loss_low"]) == [0.5, 0.3, 0.2]
    assert list(summary["loss_high"]) == [0.9, 0.3, 0.8]
    assert list(summary["images_trained"]) == [80, 140, 220]
    assert list(summary["bytes"]) == [420, 740, 1160]


def test_curves_show_these_numbers_in_the_arms_colors(rounds) -> None:
    figure = draw_round_curves(
        {"fedavg": rounds, "dcgan": rounds.assign(loss=rounds["loss"] * 100)}
    )
    loss, traffic = figure.axes
    first, second = loss.get_lines()
    assert list(first.get_xdata()) == [80, 140, 220]
    assert list(first.get_ydata()) == pytest.approx([0.6, 0.3, 0.35])
    assert to_hex(second.get_color()) == arm_styles(["dcgan"])["dcgan"].color.lower()
    assert loss.get_yscale() == "log"
    assert list(traffic.get_lines()[0].get_ydata()) == [420, 740, 1160]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["fedavg", "dcgan"]


def test_an_arm_that_sends_nothing_has_no_curve_of_traffic(rounds) -> None:
    pooled = rounds.assign(bytes_up=0, bytes_down=float("nan"))
    loss, traffic = draw_round_curves({"centralized": pooled, "fedavg": rounds}).axes
    assert len(loss.get_lines()) == 2
    assert [list(line.get_ydata()) for line in traffic.get_lines()] == [[420, 740, 1160]]


def test_similar_losses_stay_on_a_linear_scale(rounds) -> None:
    assert draw_round_curves({"fedavg": rounds}).axes[0].get_yscale() == "linear"


def test_filter_marks_who_left_and_where(rounds) -> None:
    figure = draw_filter_decisions(rounds)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(lines["client 0"].get_ydata()) == [2.0, 1.5]
    assert list(lines["client 1"].get_xdata()) == [1, 3]
    assert list(lines["threshold"].get_ydata()) == [5.0, 4.0]
    mark = lines["disconnected 1"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (3, 7.0)
    assert lines["client 1"].get_color() == ALARM != lines["client 0"].get_color()
    assert [t.get_text() for t in figure.axes[0].texts] == ["client 1 disconnected"]


def test_filter_without_checks_says_so(rounds) -> None:
    never = rounds.assign(score=np.nan, threshold=np.nan, connected=True)
    assert [t.get_text() for t in draw_filter_decisions(never).axes[0].texts] == [
        "no check was made"
    ]


def test_an_arm_keeps_its_color_whatever_stands_beside_it() -> None:
    few, many = arm_styles(["fedavg", "mine"]), arm_styles(["dcgan", "mine", "fedavg", "yours"])
    assert few["fedavg"] == many["fedavg"]
    assert len({style.color for style in many.values()}) == 4
