"""Tables of the page beside the comparison: clients' own models, and models of earlier runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.metrics.components import FINAL_AVERAGE
from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.comparison import headline_columns
from phoenix_pipeline.reporting.formatting import MISSING, format_values

_NAMED_CLASSES = 5
_SMALLEST_NAMED_SHARE = 0.05


def describe_client_models(
    arms: Sequence[ArmResults], headline: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what the report shows of every arm that has scores by client.

    ``headline``: the metrics that are compared with those of the averaged model. Each item has
    ``arm``; ``titles`` and ``clients``, a table with a row per client; ``averaged``, rows of
    metric, clients' own models, averaged model.
    """
    return [
        {
            "arm": arm.arm,
            "titles": ["Client", "Samples", describe_metric("fid_pixels").title, "Classes drawn"],
            "clients": _client_rows(arm.metrics),
            "averaged": _averaged_rows(arm.metrics["scores"], headline),
        }
        for arm in arms
        if arm.metrics["clients"]
    ]


def _client_rows(values: ArmMetrics) -> list[list[str]]:
    histogram = values["class_histogram"]
    names = histogram["class_names"] if histogram else []
    clients = sorted(values["clients"].items(), key=lambda item: int(item[0]))
    distances = format_values(
        [scores.get("fid_pixels") for _, scores in clients], describe_metric("fid_pixels")
    )
    return [
        [
            client,
            f"{scores['num_samples']:,}",
            distance or MISSING,
            _largest(scores.get("class_shares", []), names) or MISSING,
        ]
        for (client, scores), distance in zip(clients, distances, strict=True)
    ]


def _largest(shares: Sequence[float], names: Sequence[str]) -> str:
    """Name the classes that hold most of a client's samples."""
    ranked = sorted(zip(shares, names, strict=False), key=lambda pair: -pair[0])[:_NAMED_CLASSES]
    return ", ".join(
        f"{name} {share:.0%}" for share, name in ranked if share >= _SMALLEST_NAMED_SHARE
    )


def _averaged_rows(scores: Mapping[str, float], headline: Sequence[str]) -> list[list[str]]:
    rows = []
    for name in headline:
        pair = [scores.get(name), scores.get(f"{FINAL_AVERAGE}{name}")]
        if None not in pair:
            metric = describe_metric(name)
            rows.append([metric.title, *format_values(pair, metric)])
    return rows


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
            "weights": arm.weights,
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
    now = {arm.weights for arm in arms if arm.is_current(arm.metrics)}
    others = runs[~runs["weights"].isin(now)].iloc[::-1].head(_SHOWN)
    if others.empty:
        return None
    measured = [name for name in others.columns if name not in ("trained", *_KEY, *_FACTS)]
    facts = ["arm", "trained", *_FACTS]
    columns = [[_plain(value) for value in others[name]] for name in facts]
    columns += [format_values(list(others[name]), describe_metric(name)) for name in measured]
    titles = [*facts, *(describe_metric(name).title for name in measured)]
    return EarlierRuns(titles, [list(row) for row in zip(*columns, strict=True)])


def _plain(value: Any) -> str:
    """Write a setting; a table read back from CSV has whole numbers as floats."""
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:g}"
    return str(value)
