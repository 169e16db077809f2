"""What less traffic costs: values of one setting, their cost held against their scores."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.reporting.figure_style import ALARM, INK, MUTED, new_figure, style_axes
from phoenix_pipeline.reporting.formatting import format_bytes
from phoenix_pipeline.reporting.vocabulary import describe_metric

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
