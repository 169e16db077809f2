"""Tables of a sweep: one row per cell and arm, and mean and spread over what was repeated."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from phoenix_pipeline.reporting.arm_results import ScoredArm
from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.comparison import compare_arms
from phoenix_pipeline.reporting.formatting import format_values, latex_table, latex_title

RUNS = "runs"


def cell_table(cell: str, values: Mapping[str, Any], arms: Sequence[ScoredArm]) -> pd.DataFrame:
    """Return one cell's comparison with its name and axes in front, in place of same conditions."""
    place = {"cell": cell, **values}
    table = compare_arms(arms).drop(columns=list(place), errors="ignore")
    for position, (name, value) in enumerate(place.items()):
        table.insert(position, name, [value] * len(table))
    return table


def join_cells(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put the cells' tables below each other; a score that a cell lacks is missing there."""
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    # An all-missing column has no type of its own to give to the joined one.
    filled = [table.dropna(axis="columns", how="all") for table in tables]
    return pd.concat(filled, ignore_index=True).reindex(columns=columns)


def summarize(table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return per combination of ``axes`` and arm: ``runs``, and each metric's mean and spread.

    Columns ``<metric>`` and ``<metric>_std``: the sample standard deviation, missing for one run.
    Metrics that the table does not have are left out.
    """
    keys = [*axes, "arm"]
    known = [metric for metric in metrics if metric in table.columns]
    groups = table.groupby(keys, sort=False, dropna=False)
    parts: dict[str, pd.Series] = {RUNS: groups.size()}
    for metric in known:
        parts[metric] = groups[metric].mean().astype("float64")
        parts[f"{metric}_std"] = groups[metric].std().astype("float64")
    return pd.DataFrame(parts).reset_index()


def with_spread(means: Sequence[Any], spreads: Sequence[Any], metric: str) -> list[str]:
    """Write ``mean ± standard deviation``, without the latter where it is missing."""
    described = describe_metric(metric)
    texts = format_values(list(means), described)
    widths = format_values(list(spreads), described, like=list(means))
    return [f"{m} ± {s}" if m and s else m for m, s in zip(texts, widths, strict=True)]


def format_summary(summary: pd.DataFrame) -> str:
    """Write a summary as plain text; arrows show which way is better."""
    blocks = []
    for name in summary.columns:
        if f"{name}_std" in summary.columns:
            cells = with_spread(list(summary[name]), list(summary[f"{name}_std"]), name)
            blocks.append([describe_metric(name).title, *cells])
        elif not name.endswith("_std"):
            blocks.append([str(name), *map(str, summary[name])])
    widths = [max(map(len, block)) for block in blocks]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*blocks, strict=True)
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def latex_summary(summary: pd.DataFrame) -> str:
    """Return :func:`summarize` in LaTeX, mean and spread; the arm comes first, then the axes."""
    names = [name for name in summary.columns if not name.endswith("_std")]
    measured = [name for name in names if f"{name}_std" in summary]
    axes = [name for name in names if name not in (*measured, "arm")]
    columns = [[str(value) for value in summary[name]] for name in axes]
    columns += [
        with_spread(list(summary[name]), list(summary[f"{name}_std"]), name) for name in measured
    ]
    titles = ["arm", *axes, *(latex_title(describe_metric(name)) for name in measured)]
    cells = zip(*columns, strict=True)
    rows = [
        (str(arm), [(cell, False) for cell in row])
        for arm, row in zip(summary["arm"], cells, strict=True)
    ]
    return latex_table(titles, rows)
