"""Figures of what the arms generate: grids and class histograms (arXiv 2306.04098, 4 to 6)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from PIL import Image

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics, Histogram
from phoenix_pipeline.reporting.figure_style import (
    INK,
    MUTED,
    ArmStyle,
    arm_styles,
    draw_sentence,
    new_figure,
    set_name_ticks,
    shared_legend,
    style_axes,
)

_PER_ROW = 5
_MAX_NAMED_CLASSES = 20
_SHORT_NAME = 2


def draw_grids(grids: Mapping[str, Image.Image | np.ndarray]) -> Figure:
    """Draw grids side by side (Figure 6): arm -> PIL image or uint8 [H, W] or [H, W, 3]."""
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
    """Draw shares by name, and sorted (Figures 4, 5); a sentence where no arm was judged."""
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


_PANELS_PER_ROW = 2
_MAX_TICKS = 20


def sorted_shares(runs: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Sort each run's class shares from the most to the least frequent; return mean and spread.

    ``runs``: one sequence of class shares per seed, each of the same classes. Returns two arrays
    by rank: the mean and the sample standard deviation (0 for a single run). Each run is sorted by
    itself: the rank matters, not which class holds it. Raises DataError for runs of unequal
    numbers of classes.
    """
    lengths = {len(run) for run in runs}
    if len(lengths) != 1:
        raise DataError(f"class histograms of {sorted(lengths)} classes cannot be averaged")
    ordered = np.sort(np.asarray(runs, dtype=float), axis=1)[:, ::-1]
    spread = ordered.std(axis=0, ddof=1) if len(ordered) > 1 else np.zeros(ordered.shape[1])
    return ordered.mean(axis=0), spread


def draw_sorted_classes(
    shares: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    training_shares: Sequence[float] | None = None,
) -> Figure:
    """Draw the sorted class distributions, a panel per partition (the paper's Figures 4 and 5).

    ``shares``: partition -> arm -> one sequence of class shares per seed. Lines are means over the
    seeds, bands one standard deviation. ``training_shares``: those of the training images.
    """
    columns = max(1, min(len(shares), _PANELS_PER_ROW))
    rows = max(1, math.ceil(len(shares) / columns))
    figure = new_figure(5.4 * columns, 0.4 + 3.4 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(shares) :]:
        axes.set_axis_off()
    styles, handles = arm_styles(arm for arms in shares.values() for arm in arms), {}
    for axes, (partition, arms) in zip(panels, shares.items(), strict=False):
        for arm, runs in arms.items():
            handles[arm] = _draw_means(axes, runs, styles[arm])
        if training_shares is not None:
            ideal, _ = sorted_shares([training_shares])
            (handles["training images"],) = axes.plot(
                np.arange(1, len(ideal) + 1), ideal, color=INK, linestyle=(0, (1, 1)), linewidth=1.2
            )
        axes.set_xlabel("classes, the most frequent first")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        style_axes(axes, partition)
    # Shared, and only now: it ends the fitting to what is drawn.
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("share of samples")
    shared_legend(figure, list(handles.values()), list(handles))
    return figure


def _draw_means(axes: Axes, runs: Sequence[Sequence[float]], style: ArmStyle) -> Line2D:
    mean, spread = sorted_shares(runs)
    ranks = np.arange(1, len(mean) + 1)
    (line,) = axes.plot(
        ranks, mean, color=style.color, linestyle=style.dash, marker="o", markersize=4
    )
    band = (np.maximum(mean - spread, 0), mean + spread)
    axes.fill_between(ranks, *band, color=style.color, alpha=0.15, linewidth=0)
    if len(ranks) <= _MAX_TICKS:
        axes.set_xticks(ranks)
    return line
