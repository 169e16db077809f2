"""What an audit found: as rows beside fidelity, and as a figure."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phoenix_pipeline.metrics.privacy.attack import ATTACKS
from phoenix_pipeline.reporting.columns import FLOOR_NAME, describe_metric
from phoenix_pipeline.reporting.comparison import SEEN, headline_columns
from phoenix_pipeline.reporting.figure_style import (
    INK,
    MUTED,
    arm_styles,
    new_figure,
    shared_legend,
    style_axes,
)
from phoenix_pipeline.reporting.formatting import MISSING, format_values, markdown_table

# By column: the title of its panel, and what an attack gets where nothing leaks.
_PANELS = {
    "membership_auc": ("AUC of the strongest attack", 0.5),
    "membership_tpr": ("TPR at 1 % false alarms", 0.01),
}
# Columns of the table, in order; the first is the fidelity that privacy is held against.
TITLES = (
    "Strongest attack",
    "AUC (95 %)",
    "TPR at 1 % (95 %)",
    "Clients exposed",
    "Copies",
    "Rebuilt from an update",
)


def fidelity_column(table: pd.DataFrame) -> str | None:
    """Return the FID that privacy is held against, the most telling one at hand."""
    return next((name for name in headline_columns(table) if name.startswith("fid_")), None)


def privacy_titles(table: pd.DataFrame) -> list[str]:
    """Return the header of :func:`privacy_rows`."""
    fidelity = fidelity_column(table)
    return ["Arm", *([describe_metric(fidelity).title] if fidelity else []), *TITLES]


def privacy_rows(table: pd.DataFrame) -> list[list[str]]:
    """Return a row per audited arm, of ``compare_arms`` or ``comparison.csv``."""
    if "membership_auc" not in table and "copied_share" not in table:
        return []
    arms = table[table["arm"] != FLOOR_NAME]
    fidelity = fidelity_column(table)
    written = format_values(list(arms[fidelity]), describe_metric(fidelity)) if fidelity else None
    rows = []
    for place, (_, arm) in enumerate(arms.iterrows()):
        numbers = ((n, v) for n, v in arm.items() if isinstance(v, int | float) and pd.notna(v))
        values = {str(name): float(value) for name, value in numbers}
        if not {"membership_auc", "copied_share"} & values.keys():
            continue
        lead = [str(arm["arm"]), *([written[place] or MISSING] if written else [])]
        seen = arm.get(SEEN)
        rows.append([*lead, *_cells(values, seen if isinstance(seen, str) else "")])
    return rows


def format_privacy(table: pd.DataFrame) -> str:
    """Return :func:`privacy_rows` as a table in Markdown; ``""`` where nothing was audited."""
    rows = privacy_rows(table)
    if not rows:
        return ""
    return markdown_table(privacy_titles(table), rows)


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


def _cells(values: Mapping[str, float], seen: str) -> Sequence[str]:
    exposed, attacked = values.get("clients_exposed"), values.get("clients_attacked")
    rebuilt, mean = (values.get(f"reconstruction_{name}psnr_db") for name in ("", "mean_image_"))
    read = f" from {seen}" if seen else ""
    return (
        _strongest(values),
        _with_interval(values, "membership_auc"),
        _with_interval(values, "membership_tpr"),
        MISSING if exposed is None or not attacked else f"{exposed:.0f} of {attacked:.0f}",
        f"{values['copied_share']:.3f}" if "copied_share" in values else MISSING,
        MISSING if rebuilt is None else f"{rebuilt:.0f} dB (mean image {mean:.0f} dB){read}",
    )


def _strongest(values: Mapping[str, float]) -> str:
    """Return the attack whose AUC is the headline."""
    auc = values.get("membership_auc")
    named = (
        ATTACKS[a] for a in ATTACKS if a != "blind" and values.get(f"membership_auc_{a}") == auc
    )
    return next(named, MISSING) if auc is not None else MISSING


def _with_interval(values: Mapping[str, float], name: str) -> str:
    if name not in values:
        return MISSING
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    return f"{values[name]:.3f} ({low:.2f}\N{EN DASH}{high:.2f})"


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
