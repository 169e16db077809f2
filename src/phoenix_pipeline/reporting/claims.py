"""The paper's claims held against a sweep over partitions and seeds.

Phoenix (arXiv 2306.04098) claims that its diffusion model beats a federated GAN, that data sharing
and personalization with threshold filtering beat the default on non-IID data, and that traffic
falls. Two arms are compared seed by seed: both have the same partition and the same initial noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.metrics.components import extractor_spaces
from phoenix_pipeline.reporting.columns import CONDITIONS, describe_metric
from phoenix_pipeline.reporting.formatting import format_values, markdown_table
from phoenix_pipeline.reporting.sweep_tables import summarize, with_spread

PARTITION, SEED = "partition", "run.seed"
IID = "iid"
FIDELITY = tuple(extractor_spaces())
PRECISION_RECALL = (
    "precision_classifier",
    "recall_classifier",
    "precision_pixels",
    "recall_pixels",
)
MODE_COVERAGE = ("class_entropy", "class_kl", "classes_covered", "confident_share")
TRAFFIC = ("bytes_per_round", "bytes_total")
QUALITY = (*FIDELITY, *PRECISION_RECALL, *MODE_COVERAGE)


@dataclass(frozen=True)
class Claim:
    """``arm`` is better than ``baseline`` in ``metrics``; ``deciding`` ones make the verdict."""

    text: str
    arm: str
    baseline: str
    metrics: tuple[str, ...] = QUALITY
    deciding: tuple[str, ...] = (*FIDELITY, "class_kl")
    non_iid_only: bool = False


CLAIMS: tuple[Claim, ...] = (
    Claim("The diffusion model beats the GAN", "fedavg", "dcgan"),
    Claim(
        "Data sharing beats the default on non-IID data",
        *("data_sharing", "fedavg"),
        non_iid_only=True,
    ),
    Claim(
        "Personalization with filtering beats the default on non-IID data",
        *("personalization", "fedavg"),
        non_iid_only=True,
    ),
    Claim("Personalization lowers the traffic", "personalization", "fedavg", TRAFFIC, TRAFFIC),
)


def paired_differences(table: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """Return one row per partition and metric: both means, their difference, and whether it held.

    Columns: ``partition``, ``metric``, ``arm_mean``, ``arm_std``, ``baseline_mean``,
    ``baseline_std``, ``difference`` (arm - baseline, mean over the seeds that both have),
    ``difference_std`` (sample standard deviation), ``seeds``, ``deciding``, ``held``.

    ``held``: the arm is better on average, and by more than one standard deviation of the
    difference over the seeds; a metric that never varies holds when it is better at all. With
    fewer than two seeds, or where a metric has no better direction, nothing is said to hold.
    Metrics and partitions that were not measured in both arms are left out.
    """
    for column in (PARTITION, SEED, "arm"):
        if column not in table.columns:
            raise DataError(
                f"the claims need the column {column!r}; the table has "
                f"{', '.join(map(str, table.columns))}"
            )
    rows = []
    for partition, part in table.groupby(PARTITION, sort=False):
        if claim.non_iid_only and partition == IID:
            continue
        by_seed = part.set_index([SEED, "arm"])
        for metric in claim.metrics:
            if metric in by_seed.columns:
                pairs = by_seed[metric].astype("float64").unstack("arm")
                pairs = pairs.reindex(columns=[claim.arm, claim.baseline]).dropna()
                if len(pairs):
                    rows.append({"partition": partition, **_compare(pairs, claim, metric)})
    return pd.DataFrame(rows, columns=_COLUMNS)


def verdict(differences: pd.DataFrame) -> str:
    """Return ``held``, ``held in part (2 of 6)``, ``not held`` or ``not measured``."""
    deciding = differences[differences["deciding"].astype(bool)]
    held = int(deciding["held"].sum())
    if deciding.empty:
        return "not measured"
    if held == len(deciding):
        return "held"
    return f"held in part ({held} of {len(deciding)})" if held else "not held"


_COLUMNS = (
    "partition",
    "metric",
    "arm_mean",
    "arm_std",
    "baseline_mean",
    "baseline_std",
    "difference",
    "difference_std",
    "seeds",
    "deciding",
    "held",
)


def _compare(pairs: pd.DataFrame, claim: Claim, metric: str) -> dict[str, object]:
    arm, baseline = pairs[claim.arm], pairs[claim.baseline]
    difference = arm - baseline
    mean, spread = float(difference.mean()), float(difference.std())
    better = describe_metric(metric).better
    gain = -mean if better == "lower" else mean
    return {
        "metric": metric,
        "arm_mean": float(arm.mean()),
        "arm_std": float(arm.std()),
        "baseline_mean": float(baseline.mean()),
        "baseline_std": float(baseline.std()),
        "difference": mean,
        "difference_std": spread,
        "seeds": len(pairs),
        "deciding": metric in claim.deciding,
        # A single seed has no spread: NaN compares as false.
        "held": better is not None and gain > 0 and gain > spread,
    }


TABLES = {
    "Fidelity": FIDELITY,
    "Precision and recall": PRECISION_RECALL,
    "Mode coverage": MODE_COVERAGE,
    "Traffic and work": (*TRAFFIC, "images_trained", "rounds"),
}
_RULE = (
    "Numbers are means ± sample standard deviations over the seeds. Two arms are compared seed by "
    "seed. A difference *held* when its mean has the claimed sign and is larger than its own "
    "standard deviation; a claim held when all its deciding differences (**bold**) did."
)


def render_claims(table: pd.DataFrame, figures: Mapping[str, str]) -> str:
    """Return the document of ``table``; ``figures``: caption -> file."""
    compared = {claim: paired_differences(table, claim) for claim in CLAIMS}
    parts = [
        "# The paper's claims, measured",
        f"Made by `make claims`. {_RULE}",
        _conditions(table),
        "## Verdicts",
        markdown_table(
            ["claim", "arms", "verdict"],
            [
                [claim.text, f"`{claim.arm}` against `{claim.baseline}`", verdict(differences)]
                for claim, differences in compared.items()
            ],
        ),
        *(_claim_section(claim, differences) for claim, differences in compared.items()),
        *(_table_section(title, table, names) for title, names in TABLES.items()),
        *(f"## {caption}\n\n![{caption}]({file})" for caption, file in figures.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(table: pd.DataFrame) -> str:
    """Name what all scores were made with; a condition that varies is listed with its values."""
    names = [m.name for m in CONDITIONS if m.name in table.columns and m.name != "seed"]
    shown = {name: sorted(map(str, table[name].dropna().unique())) for name in names}
    seeds = ", ".join(str(seed) for seed in sorted(table[SEED].unique()))
    listed = "; ".join(f"{name} {', '.join(values)}" for name, values in shown.items() if values)
    return f"Seeds: {seeds}. Conditions: {listed}."


def _claim_section(claim: Claim, differences: pd.DataFrame) -> str:
    heading = f"### {claim.text}: {verdict(differences)}"
    if differences.empty:
        return f"{heading}\n\nThe sweep has no cell in which both arms are done."
    rows = [_difference_row(row) for _, row in differences.iterrows()]
    header = ["partition", "metric", claim.arm, claim.baseline, "difference", "seeds", "held"]
    return f"{heading}\n\n{markdown_table(header, rows)}"


def _difference_row(row: "pd.Series[Any]") -> list[str]:
    name = str(row["metric"])
    means = [row["arm_mean"], row["baseline_mean"]]
    spreads = [row["arm_std"], row["baseline_std"]]
    title = describe_metric(name).title
    return [
        str(row["partition"]),
        f"**{title}**" if row["deciding"] else title,
        *with_spread(means, spreads, name),
        _signed(float(str(row["difference"])), float(str(row["difference_std"])), name, means),
        str(row["seeds"]),
        "yes" if row["held"] else "no",
    ]


def _signed(difference: float, spread: float, name: str, like: Sequence[object]) -> str:
    """Write a difference with its sign, with the decimals of what was compared."""
    metric = describe_metric(name)
    size, around = format_values([abs(difference), spread], metric, like=like)
    sign = "+" if difference > 0 else "-" if difference < 0 else ""
    return f"{sign}{size} ± {around}" if around else f"{sign}{size}"


def _table_section(title: str, table: pd.DataFrame, metrics: Sequence[str]) -> str:
    known = [name for name in metrics if name in table.columns and table[name].notna().any()]
    if not known:
        return ""
    summary = summarize(table, [PARTITION], known)
    columns = [with_spread(list(summary[n]), list(summary[f"{n}_std"]), n) for n in known]
    header = ["partition", "arm", *(describe_metric(name).title for name in known)]
    cells = [list(summary[PARTITION].astype(str)), list(summary["arm"]), *columns]
    return f"## {title}\n\n" + markdown_table(header, list(zip(*cells, strict=True)))
