"""Figures over the rounds: loss, traffic and scores of arms, and what the threshold filter decided.

They take tables of the schema of ``rounds.parquet``, or of ``scores_by_round.parquet``.
"""

from collections.abc import Collection, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.figure_style import (
    ALARM,
    INK,
    MUTED,
    arm_styles,
    new_figure,
    shared_legend,
    style_axes,
)

_LOG_SCALE_FROM = 10.0


def summarise_rounds(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return per round the loss by images, its best and worst client, images and bytes so far."""
    used = rounds.assign(
        images_trained=rounds["images_trained"].fillna(0),
        bytes=rounds["bytes_up"].fillna(0) + rounds["bytes_down"].fillna(0),
    )
    trained = used[used["loss"].notna()]
    weighted = (trained["loss"] * trained["images_trained"]).groupby(trained["round"]).sum()
    by_round, losses = used.groupby("round"), trained.groupby("round")["loss"]
    summary = pd.DataFrame(
        {
            "loss": weighted / trained.groupby("round")["images_trained"].sum(),
            "loss_low": losses.min(),
            "loss_high": losses.max(),
            "images_trained": by_round["images_trained"].sum().cumsum(),
            "bytes": by_round["bytes"].sum().cumsum(),
        }
    )
    return summary.rename_axis("round").reset_index()


def draw_round_curves(rounds: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw training loss and cumulative traffic against the training images seen so far.

    ``rounds``: arm -> its rounds. The band around a loss reaches from the best to the worst
    client of the round. Losses of different model families are not comparable with each other. An
    arm that sends nothing has no curve of traffic.
    """
    figure = new_figure(11, 4.2)
    loss_axes, bytes_axes = figure.subplots(1, 2)
    styles, handles = arm_styles(rounds), []
    summaries = {arm: summarise_rounds(table) for arm, table in rounds.items()}
    for arm, summary in summaries.items():
        seen, color, dash = summary["images_trained"], styles[arm].color, styles[arm].dash
        few = {"marker": "o", "markersize": 3.5} if len(summary) <= 15 else {}
        loss_axes.fill_between(
            seen, summary["loss_low"], summary["loss_high"], color=color, alpha=0.1, linewidth=0
        )
        handles += loss_axes.plot(seen, summary["loss"], color=color, linestyle=dash, **few)
        if summary["bytes"].any():
            bytes_axes.plot(seen, summary["bytes"], color=color, linestyle=dash, **few)
    losses = pd.concat([s["loss"] for s in summaries.values()]) if summaries else pd.Series()
    if len(losses) and losses.min() > 0 and losses.max() / losses.min() > _LOG_SCALE_FROM:
        loss_axes.set_yscale("log")
        loss_axes.yaxis.set_major_formatter("{x:g}")
    _finish(loss_axes, "Training loss", "loss per image")
    _finish(bytes_axes, "Cumulative traffic, both directions", "bytes")
    bytes_axes.yaxis.set_major_formatter(EngFormatter(unit="B"))
    bytes_axes.set_ylim(bottom=0)
    shared_legend(figure, handles, list(rounds))
    return figure


def draw_filter_decisions(rounds: pd.DataFrame) -> Figure:
    """Draw each client's score over the rounds, the threshold, and who was disconnected.

    ``rounds``: one arm's rounds; only rows with a ``score`` (a distance: lower is better) are
    checks. A client that was disconnected is drawn in colour and marked where it left.
    """
    checks = rounds[rounds["score"].notna()].sort_values("round")
    figure = new_figure(9, 4.2)
    axes = figure.subplots()
    gone = rounds[~rounds["connected"].astype(bool)]
    left = gone.groupby("client_id")["round"].min()
    for client_id, scores in checks.groupby("client_id"):
        out = client_id in left.index
        axes.plot(
            scores["round"],
            scores["score"],
            color=ALARM if out else MUTED,
            linewidth=1.8 if out else 1.0,
            alpha=1.0 if out else 0.55,
            marker="o",
            markersize=4 if out else 2.5,
            label=f"client {client_id}",
        )
    threshold = checks.groupby("round")["threshold"].max().dropna()
    if len(threshold):
        axes.plot(threshold.index, threshold, color=INK, linestyle="--", label="threshold")
    _mark_disconnections(axes, left, checks)
    _finish(axes, "Threshold filtering: scores of the clients' own samples", "distance")
    _scale_scores(axes, checks)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _filter_legend(figure, axes)
    return figure


def _finish(axes: Axes, title: str, y_label: str) -> None:
    axes.set_xlabel("training images seen")
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    style_axes(axes, title)


def _mark_disconnections(axes: Axes, left: pd.Series, checks: pd.DataFrame) -> None:
    for client_id, round_number in left.items():
        own = checks[(checks["client_id"] == client_id) & (checks["round"] <= round_number)]
        if own.empty:
            continue
        last = own.iloc[-1]
        axes.plot(
            last["round"],
            last["score"],
            "X",
            color=ALARM,
            markersize=11,
            zorder=5,
            markeredgecolor="white",
            label=f"disconnected {client_id}",
        )
        axes.annotate(
            f"client {client_id} disconnected",
            (last["round"], last["score"]),
            xytext=(9, 5),
            textcoords="offset points",
            fontsize=9,
            fontweight="bold",
            color=ALARM,
        )


def _scale_scores(axes: Axes, checks: pd.DataFrame) -> None:
    scores = checks["score"]
    if scores.empty:
        axes.text(0.5, 0.5, "no check was made", transform=axes.transAxes, ha="center", color=MUTED)
    elif scores.min() > 0 and scores.max() / scores.min() > _LOG_SCALE_FROM:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _filter_legend(figure: Figure, axes: Axes) -> None:
    """Name each kind of line once, not every client."""
    first: dict[str, Line2D] = {}
    for line in axes.get_lines():
        label = str(line.get_label())
        out = line.get_color() == ALARM
        kind = label if label == "threshold" else "disconnected" if out else "connected clients"
        if not (kind == "disconnected" and label.startswith("client")):
            first.setdefault(kind, line)
    if first:
        shared_legend(figure, list(first.values()), list(first))


def draw_score_curves(tables: Mapping[str, pd.DataFrame], pooled: Collection[str]) -> Figure | None:
    """Draw a row of panels per feature space: by training images seen, and by bytes of traffic.

    Rounds of different arms are not equally long.

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
    for space, (by_images, by_bytes) in zip(spaces, panels, strict=True):
        for arm, table in tables.items():
            if space not in table:
                continue
            look = {"color": styles[arm].color, "linestyle": styles[arm].dash}
            points = {**look, "marker": "o", "markersize": 3.5}
            handles[arm] = by_images.plot(table["images_trained"], table[space], **points)[0]
            if arm in pooled:
                by_bytes.axhline(table[space].iloc[-1], **look, linewidth=1)
            else:
                by_bytes.plot(table["bytes_total"], table[space], **points)
        _finish_scores(by_images, by_bytes, space)
    shared_legend(figure, list(handles.values()), list(handles))
    return figure


def _finish_scores(by_images: Axes, by_bytes: Axes, space: str) -> None:
    metric = describe_metric(space)
    name = f"{metric.label}, {metric.space}"
    for axes, against in ((by_images, "training"), (by_bytes, "traffic")):
        style_axes(axes, f"{name}, against {against}")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("distance (lower is better)")
    by_images.set_xlabel("training images seen")
    by_images.xaxis.set_major_formatter(EngFormatter(sep=""))
    by_bytes.set_xlabel("sent and received by all clients together")
    by_bytes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    by_bytes.set_xlim(left=0)
