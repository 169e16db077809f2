"""Fidelity against privacy: what a better distance costs in training images that can be told."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phoenix_pipeline.reporting.comparison import FLOOR_NAME
from phoenix_pipeline.reporting.figure_style import (
    INK,
    MUTED,
    arm_styles,
    new_figure,
    shared_legend,
    style_axes,
)
from phoenix_pipeline.reporting.privacy import fidelity_column
from phoenix_pipeline.reporting.vocabulary import (
    describe_metric,
)

# By column: the title of its panel, and what an attack gets where nothing leaks.
_PANELS = {
    "membership_auc": ("AUC of the strongest attack", 0.5),
    "membership_tpr": ("TPR at 1 % false alarms", 0.01),
}


def draw_trade(table: pd.DataFrame) -> Figure | None:
    """Draw FID against AUC and TPR with their 95 % intervals; None where nothing was audited.

    ``table``: as :func:`~phoenix_pipeline.reporting.comparison.compare_arms` returns it. Better is
    to the left and down in both panels; a dashed line is what an attack gets without a leak.
    """
    fidelity = fidelity_column(table)
    if fidelity is None or "membership_auc" not in table:
        return None
    arms = table[(table["arm"] != FLOOR_NAME) & table["membership_auc"].notna()]
    arms = arms[arms[fidelity].notna()]
    if arms.empty:
        return None
    figure = new_figure(9.6, 3.6)
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    handles = {}
    for axes, (name, (title, no_leak)) in zip(panels, _PANELS.items(), strict=True):
        handles = _draw_panel(axes, arms, fidelity, name)
        axes.axvline(no_leak, color=INK, linestyle="--", linewidth=1.2)
        axes.set_xlabel("share of training images found" if "tpr" in name else "0.5 is no leak")
        style_axes(axes, title, grid="both")
    panels[0].set_ylabel(describe_metric(fidelity).title)
    panels[0].set_ylim(bottom=0)
    shared_legend(figure, list(handles.values()), list(handles))
    return figure


def _draw_panel(axes: Axes, arms: pd.DataFrame, fidelity: str, name: str) -> dict[str, object]:
    """Draw a point with its interval per arm, and return the handles of the legend by arm."""
    handles: dict[str, object] = {}
    styles = arm_styles(arms["arm"])
    for _, row in arms.iterrows():
        color, value = styles[row["arm"]].color, float(row[name])
        # The interval of a share that is far from the middle need not hold the share itself.
        reach = [
            [max(value - float(row[f"{name}_low"]), 0.0)],
            [max(float(row[f"{name}_high"]) - value, 0.0)],
        ]
        handles[row["arm"]] = axes.errorbar(
            [value], [float(row[fidelity])], xerr=reach, fmt="o", markersize=7, color=color,
            ecolor=color, elinewidth=1.6, capsize=3,
        )  # fmt: skip
    if "tpr" in name:
        axes.set_xlim(left=0)
    axes.tick_params(labelcolor=MUTED)
    return handles
