"""Distances to the real images over the rounds: against rounds, and against what was sent."""

from collections.abc import Collection, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from phoenix_pipeline.reporting.figure_style import (
    arm_styles,
    new_figure,
    shared_legend,
    style_axes,
)
from phoenix_pipeline.reporting.vocabulary import describe_metric


def draw_score_curves(tables: Mapping[str, pd.DataFrame], pooled: Collection[str]) -> Figure | None:
    """Draw a row of panels per feature space, the left by rounds, the right by bytes of traffic.

    ``tables``: arm -> what ``arms.score_rounds`` makes. ``pooled``: arms that send nothing; the
    right panels show the last value of theirs as a horizontal line. None without any table.
    """
    columns = dict.fromkeys(str(name) for table in tables.values() for name in table)
    spaces = [name for name in columns if name.startswith("fid_")]
    if not spaces:
        return None
    figure = new_figure(11, 3.4 * len(spaces) + 0.4)
    panels = figure.subplots(len(spaces), 2, squeeze=False)
    styles = arm_styles(tables)
    handles = {}
    for space, (by_round, by_bytes) in zip(spaces, panels, strict=True):
        for arm, table in tables.items():
            if space not in table:
                continue
            look = {"color": styles[arm].color, "linestyle": styles[arm].dash}
            points = {**look, "marker": "o", "markersize": 3.5}
            handles[arm] = by_round.plot(table["round"], table[space], **points)[0]
            if arm in pooled:
                by_bytes.axhline(table[space].iloc[-1], **look, linewidth=1)
            else:
                by_bytes.plot(table["bytes_total"], table[space], **points)
        _finish(by_round, by_bytes, space)
    shared_legend(figure, list(handles.values()), list(handles))
    return figure


def _finish(by_round: Axes, by_bytes: Axes, space: str) -> None:
    metric = describe_metric(space)
    name = f"{metric.label}, {metric.space}"
    for axes, against in ((by_round, "rounds"), (by_bytes, "traffic")):
        style_axes(axes, f"{name}, against {against}")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("distance (lower is better)")
    by_round.set_xlabel("round")
    by_round.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    by_bytes.set_xlabel("sent and received by all clients together")
    by_bytes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    by_bytes.set_xlim(left=0)
