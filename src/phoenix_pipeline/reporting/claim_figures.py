"""Figures of the paper's comparison over partitions and seeds: sorted class distributions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.reporting.figure_style import (
    INK,
    arm_styles,
    new_figure,
    shared_legend,
    style_axes,
)

_PER_ROW = 2
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
    columns = max(1, min(len(shares), _PER_ROW))
    rows = max(1, math.ceil(len(shares) / columns))
    figure = new_figure(5.4 * columns, 0.4 + 3.4 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(shares) :]:
        axes.set_axis_off()
    styles, handles = arm_styles(arm for arms in shares.values() for arm in arms), {}
    for axes, (partition, arms) in zip(panels, shares.items(), strict=False):
        for arm, runs in arms.items():
            mean, spread = sorted_shares(runs)
            ranks = np.arange(1, len(mean) + 1)
            style = styles[arm]
            (handles[arm],) = axes.plot(
                ranks, mean, color=style.color, linestyle=style.dash, marker="o", markersize=4
            )
            band = (np.maximum(mean - spread, 0), mean + spread)
            axes.fill_between(ranks, *band, color=style.color, alpha=0.15, linewidth=0)
            if len(ranks) <= _MAX_TICKS:
                axes.set_xticks(ranks)
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
