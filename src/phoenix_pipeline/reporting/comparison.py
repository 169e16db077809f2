"""The comparison of the arms: one row per arm, and its headline as text for the terminal.

Figures and HTML are drawn from the same table elsewhere.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from phoenix_pipeline.reporting.formatting import DOUBTFUL, MISSING, format_values
from phoenix_pipeline.reporting.gap_closed import add_gap_closed, doubtful_shares
from phoenix_pipeline.reporting.vocabulary import (
    FEATURE_SPACES,
    describe_metric,
)

FLOOR_NAME = "real test images"
TERMINAL_WIDTH = 110
RUN_COLUMNS = (
    "rounds",
    "clients",
    "images_trained",
    "bytes_up",
    "bytes_down",
    "bytes_total",
    "bytes_per_round",
    "train_seconds",
    "images_per_second",
    "epsilon",
    "link_seconds",
)
TRAFFIC_COLUMNS = tuple(n for n in RUN_COLUMNS if n.startswith("bytes_") or n == "link_seconds")
JUDGE_COLUMNS = ("classifier_test_accuracy", "classifier_majority_share")
# Text: what the attacker read that rebuilt an image from an update.
SEEN = "reconstruction_seen"
# Text: the settings that an arm was made with and that are others today.
OTHER_SETTINGS = "other_settings"
MARK = "*"
CONDITION_COLUMNS = (
    "reference_split",
    "num_samples",
    "num_clients",
    "num_reference",
    "sampler",
    "num_steps",
    "timestep_spacing",
    "weights",
    "seed",
)
_INTEGERS = {
    *RUN_COLUMNS[:6],
    "num_samples",
    "num_clients",
    "num_reference",
    "num_steps",
    "seed",
}
_SPACE_ORDER = ("inception_v3", "classifier", "efficientnet_lite0", "pixels")
# From dispensable to indispensable. Precision goes before recall and coverage: alone, it flatters
# blur.
_DROP_ORDER = (
    "Copies",
    "Gap closed",
    "Classes",
    "KID",
    "Precision",
    "KL",
    "fid_efficientnet_lite0",
    "Recall",
    "Entropy",
    "link_seconds",
    "bytes_total",
    "images_trained",
    "Coverage",
    "FID",
)


def compare_arms(
    metrics: Mapping[str, Mapping[str, Any]],
    rounds: Mapping[str, pd.DataFrame],
    floor: Mapping[str, float] | None = None,
    pooled: Collection[str] = (),
    privacy: Mapping[str, Mapping[str, Any]] | None = None,
    marks: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Put all arms into one table.

    Columns: ``arm``; every score, in the order in which they first appear; the share of the gap
    that is closed (:func:`~phoenix_pipeline.reporting.gap_closed.add_gap_closed`); what the run
    cost (:data:`RUN_COLUMNS`); how good the classifier is (:data:`JUDGE_COLUMNS`); the
    conditions of the scores. What an arm does not have is missing, never text.

    ``metrics``: arm -> its ``metrics.json``; gives the order of the rows. ``rounds``: arm -> its
    ``rounds.parquet``; arms found only there come last. ``floor``: the scores that real test
    images get, added as the last row, named :data:`FLOOR_NAME`; it may say its ``num_samples``.
    ``pooled``: arms whose images lie in one place; nothing crosses a wire there, so they have no
    traffic rather than one of 0 bytes. ``privacy``: arm -> its ``privacy.json``, where there is
    one; its scores follow the others. ``marks``: arm -> the settings in which it is not of today's;
    any make a column of text, :data:`OTHER_SETTINGS`.
    """
    arms = [*metrics, *(arm for arm in rounds if arm not in metrics)]
    rows = [_arm_row(arm, metrics.get(arm, {}), rounds.get(arm)) for arm in arms]
    for row in rows:
        if row["arm"] in pooled:
            row.update(dict.fromkeys(TRAFFIC_COLUMNS))
    audits = [audit.get("scores", {}) for audit in (privacy or {}).values()]
    for row in rows:
        audit = (privacy or {}).get(row["arm"], {})
        row.update(_finite(audit.get("scores", {})))
        row[SEEN] = (audit.get("reconstruction") or {}).get("seen")
    scores = [m.get("scores", {}) for m in metrics.values()]
    names = list(dict.fromkeys(name for found in (*scores, *audits) for name in found))
    if floor:
        names = list(dict.fromkeys([*names, *floor]))
        rows.append({"arm": FLOOR_NAME, **_finite(floor)})
    for row in rows:
        row[OTHER_SETTINGS] = (marks or {}).get(row["arm"])
    marked = [OTHER_SETTINGS] if marks else []
    others = [*RUN_COLUMNS, *JUDGE_COLUMNS, *CONDITION_COLUMNS, *marked]
    names = [name for name in names if name not in others]
    seen = [SEEN] if any(row.get(SEEN) for row in rows) else []
    columns = ["arm", *names, *seen, *others]
    table = pd.DataFrame(rows, columns=columns)
    for column in columns:
        if column in _INTEGERS:
            table[column] = table[column].astype("Int64")
        elif column in names:
            table[column] = table[column].astype("float64")
    return add_gap_closed(table, before=RUN_COLUMNS[0], beside=(FLOOR_NAME,))


def run_totals(rounds: pd.DataFrame) -> dict[str, float]:
    """Sum one arm's ``rounds.parquet``: work, traffic (bytes) and training time (seconds).

    Rows before round 1 (a warm-up) count as work, not as rounds. On a simulated link a round lasts
    as long as its slowest client's. A sum over nothing but missing values is left out.
    """
    communicated = rounds[rounds["round"] > 0]
    num_rounds = int(communicated["round"].nunique())
    sums = {
        name: rounds[column].sum(min_count=1)
        for name, column in (
            ("images_trained", "images_trained"),
            ("bytes_up", "bytes_up"),
            ("bytes_down", "bytes_down"),
            ("train_seconds", "seconds"),
        )
    }
    totals = {"rounds": num_rounds, "clients": int(communicated["client_id"].nunique()), **sums}
    totals["bytes_total"] = sums["bytes_up"] + sums["bytes_down"]
    if num_rounds:
        totals["bytes_per_round"] = totals["bytes_total"] / num_rounds
    if "epsilon" in rounds:
        totals["epsilon"] = rounds["epsilon"].max()
    if "link_seconds" in rounds:
        slowest = communicated.groupby("round")["link_seconds"].max()
        totals["link_seconds"] = slowest.sum(min_count=1)
    if sums["train_seconds"] > 0:
        totals["images_per_second"] = sums["images_trained"] / sums["train_seconds"]
    return _finite(totals)


def headline_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns worth a first look, in reading order.

    All FIDs; share of the gap closed, KID, precision, recall and coverage in the most telling
    feature space at hand; the evenness of the classes; copies; work and traffic. Columns without
    any value are left out.
    """
    present = [c for c in table.columns if c != "arm" and table[c].notna().any()]
    described = {name: describe_metric(name) for name in present}
    chosen = [f"fid_{space}" for space in _SPACE_ORDER]
    for label in ("Gap closed", "KID", "Precision", "Recall", "Coverage"):
        family = [name for name in present if described[name].label == label]
        chosen += sorted(family, key=_space_rank)[:1]
    for label in ("Entropy", "KL", "Classes"):
        chosen += [name for name in present if described[name].label == label][:1]
    chosen += ["memorized_share", "images_trained", "bytes_total", "link_seconds"]
    return [name for name in chosen if name in present]


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
    if doubtful_shares(table):
        lines.append(f"{DOUBTFUL} behind a number: not credible; see the report")
    if OTHER_SETTINGS in table:
        lines.append(f"{MARK} made with other settings than those of this command; see the report")
    return "\n".join(lines)


def _arm_row(arm: str, metrics: Mapping[str, Any], rounds: pd.DataFrame | None) -> dict[str, Any]:
    conditions = metrics.get("conditions", {})
    histogram = metrics.get("class_histogram") or {}
    return {
        "arm": arm,
        **{name: histogram.get(name) for name in JUDGE_COLUMNS},
        **_finite(metrics.get("scores", {})),
        **(run_totals(rounds) if rounds is not None else {}),
        **{name: conditions.get(name) for name in CONDITION_COLUMNS},
    }


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}


def _space_rank(name: str) -> int:
    return next((i for i, s in enumerate(_SPACE_ORDER) if name.endswith(s)), len(FEATURE_SPACES))


def _keep_rank(name: str, columns: list[str]) -> tuple[int, int]:
    label = name if name in _DROP_ORDER else describe_metric(name).label
    return _DROP_ORDER.index(label), -columns.index(name)


def _text_blocks(table: pd.DataFrame, columns: list[str]) -> list[list[str]]:
    """Return per column its two header lines and its cells; other settings mark the arm."""
    marked = table[OTHER_SETTINGS].notna() if OTHER_SETTINGS in table else [False] * len(table)
    arms = [
        f"{arm}{MARK if is_marked else ''}"
        for arm, is_marked in zip(table["arm"], marked, strict=True)
    ]
    blocks = [["", "arm", *arms]]
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
