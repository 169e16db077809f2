"""Figures of scores: bars per headline metric of the comparison, and heat maps of a sweep."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.reporting.columns import FLOOR_NAME, GAP_CLOSED, describe_metric
from phoenix_pipeline.reporting.comparison import headline_columns
from phoenix_pipeline.reporting.figure_style import (
    ALARM,
    INK,
    MUTED,
    arm_styles,
    new_figure,
    shared_legend,
    style_axes,
)
from phoenix_pipeline.reporting.formatting import MISSING, format_bytes, format_values

_PER_ROW = 4
_DARK = 0.5
_ROOM_FOR_NUMBERS = 1.45


def draw_scores(table: pd.DataFrame) -> Figure:
    """Draw one bar per arm and headline metric; a dashed line is what real test images get."""
    names = [
        name
        for name in headline_columns(table)
        if name != "images_trained" and not name.startswith(GAP_CLOSED.name)
    ]
    arms = table[table["arm"] != FLOOR_NAME]
    floor = table[table["arm"] == FLOOR_NAME]
    columns = max(1, min(len(names), _PER_ROW))
    rows = max(1, -(-len(names) // columns))
    figure = new_figure(2.9 * columns + 1.2, rows * (0.75 + 0.3 * len(arms)))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        reference = floor[name].iloc[0] if len(floor) else np.nan
        _draw_metric(axes, arms, name, None if pd.isna(reference) else float(reference))
    if len(floor):
        line = Line2D([], [], color=INK, linestyle="--", linewidth=1.2)
        shared_legend(figure, [line], [FLOOR_NAME])
    return figure


def draw_heatmap(table: pd.DataFrame, rows: str, columns: str, values: str) -> Figure:
    """Draw ``values`` over ``rows`` x ``columns`` of a sweep, one cell per pair.

    Cells found more than once (several seeds) show mean and standard deviation; combinations
    that were not run stay empty. Dark is better where the metric has a better direction.
    Raises :class:`DataError` where one of the columns is not in ``table``.
    """
    for name in (rows, columns, values):
        if name not in table.columns:
            raise DataError(
                f"the heat map needs the column {name!r}, which the table does not have; it has "
                f"{', '.join(map(str, table.columns))}"
            )
    cells = table.groupby([rows, columns])[values].agg(["mean", "std"]).astype(float)
    means, spreads = cells["mean"].unstack(columns), cells["std"].unstack(columns)
    metric = describe_metric(values)
    height, width = means.shape
    figure = new_figure(2.6 + 1.05 * width, 1.6 + 0.62 * height)
    axes = figure.subplots()
    palette = "cividis" if metric.better == "lower" else "cividis_r"
    grid = np.ma.masked_invalid(means.to_numpy())
    image = axes.imshow(grid, cmap=palette, aspect="auto")
    style_axes(axes, f"{metric.title}", grid="")
    axes.set_xticks(range(width), [str(v) for v in means.columns])
    axes.set_yticks(range(height), [str(v) for v in means.index])
    axes.set_xlabel(columns)
    axes.set_ylabel(rows)
    _write_cells(axes, means, spreads, values)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, labelcolor=MUTED)
    return figure


def _draw_metric(axes: Axes, arms: pd.DataFrame, name: str, reference: float | None) -> None:
    metric, styles = describe_metric(name), arm_styles(arms["arm"])
    values = arms[name].astype("float64").to_numpy()
    places = range(len(arms))
    axes.barh(
        places, np.nan_to_num(values), height=0.7, color=[styles[a].color for a in arms["arm"]]
    )
    for place, text in zip(places, format_values(list(arms[name]), metric), strict=True):
        axes.text(
            1.0,
            place,
            text or (MISSING if metric.kind == "bytes" else "not measured"),
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=8.5,
            color=INK,
        )
    if reference is not None:
        axes.axvline(reference, color=INK, linestyle="--", linewidth=1.2)
    top = np.nanmax([*values, reference or 0.0, 0.0])
    axes.set_xlim(0, top * _ROOM_FOR_NUMBERS if top else 1.0)
    axes.set_yticks(places, list(arms["arm"]))
    axes.set_ylim(len(arms) - 0.4, -0.6)
    style_axes(axes, metric.title, grid="")
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK)


def _write_cells(axes: Axes, means: pd.DataFrame, spreads: pd.DataFrame, values: str) -> None:
    metric, low, high = describe_metric(values), np.nanmin(means), np.nanmax(means)
    all_means = list(means.to_numpy().ravel())
    texts = format_values(all_means, metric)
    spread_texts = format_values(list(spreads.to_numpy().ravel()), metric, like=all_means)
    for place, text in enumerate(texts):
        row, column = divmod(place, means.shape[1])
        if not text:
            axes.text(column, row, "not run", ha="center", va="center", fontsize=8, color=MUTED)
            continue
        share = (means.iat[row, column] - low) / (high - low) if high > low else 0.0
        dark = share < _DARK if metric.better == "lower" else share > _DARK
        shown = f"{text}\n± {spread_texts[place]}" if spread_texts[place] else text
        color = "white" if dark else "black"
        axes.text(column, row, shown, ha="center", va="center", fontsize=9, color=color)


ALLOWED_LOSS = 1.1


def frontier_table(
    table: pd.DataFrame, axis: str, baseline: str, cost: str, scores: Sequence[str]
) -> pd.DataFrame:
    """Return one row per value of ``axis``, the cheapest first.

    Columns: ``axis``; ``runs``; ``cost`` (mean); ``times_less``: the baseline's cost over it; for
    each score, of which less is better, its mean, ``<score>_std``, ``<score>_ratio`` (to the
    baseline's mean) and ``<score>_on_frontier``: no cheaper value has as good a mean.

    ``table``: one row per run. Raises DataError where it lacks a column or the baseline.
    """
    for name in (axis, cost, *scores):
        if name not in table.columns:
            raise DataError(f"the frontier needs the column {name!r}, which no cell has")
    groups = table.assign(**{axis: table[axis].astype(str)}).groupby(axis, sort=False)
    if baseline not in groups.groups:
        raise DataError(f"the frontier needs {axis} = {baseline}, which no cell has")
    means = groups[[cost, *scores]].mean().astype("float64")
    result = pd.DataFrame({"runs": groups.size(), cost: means[cost]})
    reference = {name: float(means[name][baseline]) for name in (cost, *scores)}
    result["times_less"] = reference[cost] / means[cost]
    spreads = groups[list(scores)].std().astype("float64")
    order = means[cost].sort_values(kind="stable").index
    for score in scores:
        result[score] = means[score]
        result[f"{score}_std"] = spreads[score]
        result[f"{score}_ratio"] = means[score] / reference[score]
        best_so_far = means.loc[order, score].cummin().shift()
        result[f"{score}_on_frontier"] = ~(means[score] >= best_so_far.reindex(means.index))
    return result.loc[order].reset_index()


def draw_frontier(
    table: pd.DataFrame, axis: str, baseline: str, cost: str, scores: Sequence[str]
) -> Figure:
    """Draw cost (log scale) against each score, a panel each; the line joins the frontier.

    ``table``: of :func:`frontier_table`. Bars are one standard deviation over the runs; the dashed
    line is 10 % worse than the baseline.
    """
    figure = new_figure(6.4 * len(scores), 4.6)
    for axes, score in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        _draw_panel(axes, table, axis, baseline, cost, score)
    return figure


def _draw_panel(
    axes: Axes, table: pd.DataFrame, axis: str, baseline: str, cost: str, score: str
) -> None:
    frontier = table[table[f"{score}_on_frontier"]]
    style_axes(axes, describe_metric(score).title)
    axes.set_xscale("log")
    # Room for the labels, which stand to the right of their points.
    axes.set_xlim(float(table[cost].min()) / 1.3, float(table[cost].max()) * 2.5)
    axes.plot(frontier[cost], frontier[score], color=MUTED, linewidth=1.2, zorder=1)
    axes.errorbar(
        table[cost], table[score], table[f"{score}_std"].fillna(0.0), fmt="o", color=INK, capsize=2
    )
    reference = float(table.loc[table[axis] == baseline, score].iloc[0])
    axes.axhline(ALLOWED_LOSS * reference, color=ALARM, linestyle="--", linewidth=1.0)
    # By turns above and below: neighbours often have nearly the same cost and score.
    for number, (label, x, y) in enumerate(
        zip(table[axis], table[cost], table[score], strict=True)
    ):
        offset = (5, -10 if number % 2 else 4)
        axes.annotate(
            label, (x, y), xytext=offset, textcoords="offset points", fontsize=7.5, color=INK
        )
    metric = describe_metric(cost)
    axes.set_xlabel(f"{metric.label} {metric.space}".strip())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    if metric.kind == "bytes":
        axes.xaxis.set_major_formatter(lambda value, _: format_bytes(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
