"""The comparison of the arms: one row per arm, and its headline as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.metrics.components import feature_spaces, space_of
from phoenix_pipeline.metrics.metric import GROUPS, Metric
from phoenix_pipeline.metrics.scores import SCORES as JUDGE_QUALITY
from phoenix_pipeline.reporting.arm_results import ScoredArm
from phoenix_pipeline.reporting.columns import (
    CONDITIONS,
    COSTS,
    FLOOR_NAME,
    OTHER_SETTINGS,
    add_gap_closed,
    add_start_shares,
    describe_metric,
    doubtful_shares,
    finite,
    run_totals,
)
from phoenix_pipeline.reporting.formatting import DOUBTFUL, MISSING, format_values

TERMINAL_WIDTH = 110
TRAFFIC_COLUMNS = ("bytes_up", "bytes_down", "bytes_total", "bytes_per_round", "link_seconds")
# Text: what the attacker read that rebuilt an image from an update.
SEEN = "reconstruction_seen"
MARK = "*"
_COSTS = [metric.name for metric in COSTS]
_JUDGE = [metric.name for metric in JUDGE_QUALITY]
_CONDITIONS = [metric.name for metric in CONDITIONS]
_FRACTIONS = {"bytes_per_round", "images_per_second"}
_INTEGERS = {m.name for m in (*COSTS, *CONDITIONS) if m.kind in ("count", "bytes")} - _FRACTIONS


def compare_arms(
    arms: Sequence[ScoredArm], floor: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Put ``arms`` into one table, a row each.

    Columns: ``arm``; every score, in the order in which they first appear, those of audits after
    the others; the share of the gap that is closed, and what is left of the distance of given
    weights (:mod:`~phoenix_pipeline.reporting.columns`); what the run cost (``columns.COSTS``); how
    good the classifier is; the conditions of the scores; ``other_settings``, where any arm has
    some. What an arm does not have is missing, never text.

    ``floor``: the scores that real test images get, added as the last row, named
    :data:`FLOOR_NAME`; it may say its ``num_samples``.
    """
    rows = [_arm_row(arm) for arm in arms]
    audited = [arm.audit["scores"] for arm in arms if arm.audit]
    scored = [*(arm.metrics["scores"] for arm in arms), *audited, floor or {}]
    if floor:
        rows.append({"arm": FLOOR_NAME, **finite(floor)})
    marked = [OTHER_SETTINGS.name] if any(arm.other_settings for arm in arms) else []
    others = [*_COSTS, *_JUDGE, *_CONDITIONS, *marked]
    names = [n for n in dict.fromkeys(name for own in scored for name in own) if n not in others]
    seen = [SEEN] if any(row.get(SEEN) for row in rows) else []
    columns = ["arm", *names, *seen, *others]
    table = pd.DataFrame(rows, columns=columns)
    for column in columns:
        if column in _INTEGERS or column == "seed":
            table[column] = table[column].astype("Int64")
        elif column in names:
            table[column] = table[column].astype("float64")
    return add_start_shares(add_gap_closed(table), {arm.arm: arm.by_round for arm in arms})


def marked_arms(table: pd.DataFrame) -> dict[str, str]:
    """Return arm -> the settings in which it is not of today's, of the arms that have any."""
    if OTHER_SETTINGS.name not in table:
        return {}
    keys = table.set_index("arm")[OTHER_SETTINGS.name].dropna()
    return {str(arm): str(value) for arm, value in keys.items()}


def headline_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns worth a first look, in reading order, as their metrics say.

    A metric of feature spaces is shown in the most telling one at hand, unless it asks for all.
    Columns without any value are left out.
    """
    ranked: list[tuple[int, int, str]] = []
    shown: set[str] = set()
    present = [c for c in table.columns if c != "arm" and table[c].notna().any()]
    for name in sorted(present, key=_space_rank):
        metric = describe_metric(name)
        if metric.headline and (metric.headline.every_space or metric.label not in shown):
            shown.add(metric.label)
            ranked.append((metric.headline.place, _space_rank(name), name))
    return [name for _, _, name in sorted(ranked)]


def format_table(table: pd.DataFrame, width: int = TERMINAL_WIDTH) -> str:
    """Write the headline columns as plain text of at most ``width`` characters a line.

    Arrows show which way is better. Where the columns do not fit, the least telling go first;
    the CSV has them all.
    """
    columns = headline_columns(table)
    while columns and _line_width(blocks := _text_blocks(table, columns)) > width:
        columns.remove(min(columns, key=lambda name: _keep_rank(name, columns)))
    blocks = _text_blocks(table, columns)
    lines = []
    for cells in zip(*blocks, strict=True):
        padded = [cells[0].ljust(_width(blocks[0]))]
        padded += [
            cell.rjust(_width(block)) for cell, block in zip(cells[1:], blocks[1:], strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(2, "-" * _line_width(blocks))
    if doubtful_shares(table[["arm", *columns]]):
        lines.append(f"{DOUBTFUL} behind a number: not credible; see the report")
    if OTHER_SETTINGS.name in table:
        lines.append(f"{MARK} made with other settings than those of this command; see the report")
    return "\n".join(lines)


def _arm_row(arm: ScoredArm) -> dict[str, Any]:
    histogram: Mapping[str, object] = arm.metrics["class_histogram"] or {}
    conditions: Mapping[str, object] = arm.metrics["conditions"]
    row: dict[str, Any] = {"arm": arm.arm, OTHER_SETTINGS.name: arm.other_settings or None}
    row |= {name: histogram.get(name) for name in _JUDGE}
    row |= finite(arm.metrics["scores"])
    row |= {name: conditions.get(name) for name in _CONDITIONS}
    if len(arm.rounds):
        row |= run_totals(arm.rounds)
    if arm.is_pooled:
        # Nothing crosses a wire there: no traffic rather than one of 0 bytes.
        row |= dict.fromkeys(TRAFFIC_COLUMNS)
    if arm.audit:
        row |= finite(arm.audit["scores"])
        rebuilt = arm.audit["reconstruction"]
        row[SEEN] = rebuilt["seen"] if rebuilt else None
    return row


def _space_rank(name: str) -> int:
    space = space_of(name)
    return list(feature_spaces()).index(space.name) if space else len(feature_spaces())


def _keep_rank(name: str, columns: list[str]) -> tuple[int, int]:
    metric, space = describe_metric(name), space_of(name)
    keep = metric.headline.keep if metric.headline else 0
    if space and space.keep is not None:
        keep = min(keep, space.keep)
    return keep, -columns.index(name)


def _text_blocks(table: pd.DataFrame, columns: list[str]) -> list[list[str]]:
    """Return per column its two header lines and its cells; other settings mark the arm."""
    marked = marked_arms(table)
    blocks = [["", "arm", *(f"{arm}{MARK}" if arm in marked else arm for arm in table["arm"])]]
    for name in columns:
        metric = describe_metric(name)
        first = metric.label if metric.space else ""
        last = f"{metric.space or metric.label} {metric.arrow}".rstrip()
        cells = format_values(list(table[name]), metric)
        blocks.append([first, last, *(cell or MISSING for cell in cells)])
    return blocks


def _width(block: list[str]) -> int:
    return max(map(len, block))


def _line_width(blocks: list[list[str]]) -> int:
    return sum(map(_width, blocks)) + 2 * (len(blocks) - 1)


def table_view(table: pd.DataFrame, columns: Sequence[str], pooled: set[str]) -> dict[str, Any]:
    """Return ``groups``, ``columns`` and ``rows`` of cells: text, best or not, and sort value."""
    described = sorted((describe_metric(c) for c in columns), key=lambda m: GROUPS.index(m.group))
    texts = [format_values(list(table[m.name]), m) for m in described]
    best = [_best_places(table, m, pooled) for m in described]
    sorted_by = [["" if pd.isna(value) else value for value in table[m.name]] for m in described]
    cells = list(zip(texts, best, sorted_by, strict=True))
    rows = [
        (str(arm), [(text[i], i in places, values[i]) for text, places, values in cells])
        for i, arm in enumerate(table["arm"])
    ]
    spans = [(group, sum(m.group == group for m in described)) for group in GROUPS]
    return {"groups": [s for s in spans if s[1]], "columns": described, "rows": rows}


def _best_places(table: pd.DataFrame, metric: Metric, pooled: set[str]) -> set[int]:
    """Return the rows with the best value among arms that train without pooling the images."""
    if metric.better is None:
        return set()
    rivals = ~table["arm"].isin({*pooled, FLOOR_NAME}).to_numpy()
    values = table[metric.name].to_numpy(dtype="float64", na_value=np.nan)
    compared = values[rivals & ~np.isnan(values)]
    if len(compared) < 2 or compared.min() == compared.max():
        return set()
    best = compared.min() if metric.better == "lower" else compared.max()
    return {int(i) for i in np.flatnonzero(rivals & (values == best))}
