"""A row per model that was ever compared in a data folder, and the page's table of earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.comparison import headline_columns
from phoenix_pipeline.reporting.formatting import format_values

_SHOWN = 30
_KEY = ("arm", "weights")
# What tells runs apart at a glance: column -> the group and the key of the settings.
_FACTS = {
    "seed": ("run", "seed"),
    "scheme": ("partition", "scheme"),
    "classes": ("partition", "classes_per_client"),
    "clients": ("partition", "num_clients"),
    "rounds": ("federation", "num_rounds"),
}


@dataclass(frozen=True)
class EarlierRuns:
    """Rows of other models than today's, the newest first, as text; ``titles``: of the columns."""

    titles: list[str]
    rows: list[list[str]]


def add_runs(
    earlier: pd.DataFrame, table: pd.DataFrame, arms: Sequence[ArmResults]
) -> pd.DataFrame:
    """Return ``earlier`` with a row per model; one that is scored again replaces its row.

    ``table``: of ``compare_arms``. Scores of a model that is no longer there make no row. Columns:
    trained (when), arm, weights, some settings, num_samples, and the headline scores.
    """
    scores = ["num_samples", *headline_columns(table)]
    by_arm = table.set_index("arm")
    rows = [
        {
            "trained": arm.description["written"],
            "arm": arm.arm,
            "weights": _weights(arm),
            **{name: arm.settings[group][key] for name, (group, key) in _FACTS.items()},
            **{name: by_arm.at[arm.arm, name] for name in scores},
        }
        for arm in arms
        if arm.is_current(arm.metrics)
    ]
    parts = [part.astype(object) for part in (earlier, pd.DataFrame(rows)) if len(part)]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_KEY))
    return joined.drop_duplicates(list(_KEY), keep="last")


def show_earlier(runs: pd.DataFrame, arms: Sequence[ArmResults]) -> EarlierRuns | None:
    """Return the rows of ``runs`` that are of other models; None where there are none."""
    now = {_weights(arm) for arm in arms if arm.is_current(arm.metrics)}
    others = runs[~runs["weights"].isin(now)].iloc[::-1].head(_SHOWN)
    if others.empty:
        return None
    measured = [name for name in others.columns if name not in ("trained", *_KEY, *_FACTS)]
    facts = ["arm", "trained", *_FACTS]
    columns = [[_plain(value) for value in others[name]] for name in facts]
    columns += [format_values(list(others[name]), describe_metric(name)) for name in measured]
    titles = [*facts, *(describe_metric(name).title for name in measured)]
    return EarlierRuns(titles, [list(row) for row in zip(*columns, strict=True)])


def _weights(arm: ArmResults) -> str:
    """Return the digest of the model's weights, not to be taken for a number."""
    return f"sha256:{arm.description['weights_digest']}"


def _plain(value: Any) -> str:
    """Write a setting; a table read back from CSV has whole numbers as floats."""
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:g}"
    return str(value)
