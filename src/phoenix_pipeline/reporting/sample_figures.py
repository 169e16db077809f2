"""Figures of what the arms generate: sample grids and class histograms, side by side.

After Figures 4 to 6 of Phoenix (arXiv 2306.04098).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from phoenix_pipeline.metrics.arm_metrics import ArmMetrics, Histogram
from phoenix_pipeline.reporting.figure_style import (
    INK,
    MUTED,
    arm_styles,
    draw_sentence,
    new_figure,
    shared_legend,
    style_axes,
)
from phoenix_pipeline.reporting.figure_text import set_name_ticks

_PER_ROW = 5
_MAX_NAMED_CLASSES = 20
_SHORT_NAME = 2


def draw_grids(grids: Mapping[str, Image.Image | np.ndarray]) -> Figure:
    """Draw the arms' sample grids side by side, as in the paper's Figure 6.

    ``grids``: arm -> a finished grid, as a PIL image or uint8 [H, W] or [H, W, 3].
    """
    columns = max(1, min(len(grids), _PER_ROW))
    rows = max(1, -(-len(grids) // columns))
    figure = new_figure(3.1 * columns, 3.35 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (arm, grid) in zip(panels, grids.items(), strict=False):
        pixels = np.asarray(grid)
        # Nearest neighbours: smoothing would hide how sharp the samples are.
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(arm, fontsize=11, fontweight="bold", color=INK)
    return figure


def draw_class_histograms(
    metrics: Mapping[str, ArmMetrics], training_shares: Sequence[float] | None = None
) -> Figure:
    """Draw the share of each class among the samples: by class name, and sorted (Figures 4, 5).

    ``metrics``: arm -> its ``metrics.json``; arms without a ``class_histogram`` are left out. Where
    no arm has one, the figure says so.
    ``training_shares``: the same of the training images, in the order of ``class_names``.
    """
    histograms = {a: found for a, m in metrics.items() if (found := m["class_histogram"])}
    if not histograms:
        return draw_sentence("No class histogram: there are no labels to train a classifier on.")
    count = len(histograms)
    figure = new_figure(max(8.0, 2.5 * count), 6.0)
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.25))
    panels = top.subplots(1, count, sharey=True, squeeze=False).ravel()
    styles = arm_styles(metrics)
    for axes, (arm, histogram) in zip(panels, histograms.items(), strict=False):
        _draw_by_class(axes, arm, histogram, styles[arm].color, training_shares)
    panels[0].set_ylabel("share of samples", fontsize=9, color=MUTED)
    axes = bottom.subplots()
    handles = []
    for arm, histogram in histograms.items():
        style = styles[arm]
        handles += _draw_sorted(axes, histogram["shares"], style.color, style.dash, "o")
    labels = list(histograms)
    if training_shares is not None:
        handles += _draw_sorted(axes, training_shares, INK, (0, (1, 1)), "_")
        labels.append("training images")
    accuracy = min(h["classifier_test_accuracy"] for h in histograms.values())
    axes.set_xlabel(
        "classes, each arm's most frequent first; "
        f"the classifier is right on {accuracy:.1%} of real test images"
    )
    axes.set_ylabel("share of samples")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(bottom=0)
    style_axes(axes, "Sorted: how evenly the classes are covered")
    shared_legend(figure, handles, labels)
    return figure


def _draw_by_class(
    axes: Axes,
    arm: str,
    histogram: Histogram,
    color: str,
    training_shares: Sequence[float] | None,
) -> None:
    names, shares = list(histogram["class_names"]), np.asarray(histogram["shares"], dtype=float)
    places = np.arange(len(shares))
    axes.bar(places, shares, width=0.78, color=color)
    if training_shares is not None:
        axes.hlines(training_shares, places - 0.46, places + 0.46, color=INK, linewidth=1.4)
    if len(names) <= _MAX_NAMED_CLASSES:
        long = max(map(len, names), default=0) > _SHORT_NAME
        set_name_ticks(axes, "x", places.tolist(), names, rotation=90 if long else 0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    style_axes(axes, arm)


def _draw_sorted(
    axes: Axes, shares: Sequence[float], color: str, dash: Any, marker: str
) -> list[Any]:
    ordered = np.sort(np.asarray(shares, dtype=float))[::-1]
    ranks = np.arange(1, len(ordered) + 1)
    size = 4.5 if len(ordered) <= _MAX_NAMED_CLASSES else 0
    if len(ordered) <= _MAX_NAMED_CLASSES:
        axes.set_xticks(ranks)
    return axes.plot(ranks, ordered, color=color, linestyle=dash, marker=marker, markersize=size)
