"""The claims as a Markdown document: verdicts, differences, tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from phoenix_pipeline.reporting.claims import (
    CLAIMS,
    FIDELITY,
    MODE_COVERAGE,
    PRECISION_RECALL,
    TRAFFIC,
    Claim,
    paired_differences,
    verdict,
)
from phoenix_pipeline.reporting.formatting import format_values
from phoenix_pipeline.reporting.run_totals import CONDITIONS
from phoenix_pipeline.reporting.sweep_tables import summarize, with_spread
from phoenix_pipeline.reporting.vocabulary import describe_metric

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


def render_claims(
    table: pd.DataFrame,
    partition_column: str,
    seed_column: str,
    command: str,
    figures: Mapping[str, str],
) -> str:
    """Return the document.

    ``table``: one row per partition, seed and arm. ``command``: what makes it again. ``figures``:
    caption -> file name beside the document.
    """
    compared = {
        claim: paired_differences(table, claim, partition_column, seed_column) for claim in CLAIMS
    }
    parts = [
        "# The paper's claims, measured",
        f"Made by `{command}`. {_RULE}",
        _conditions(table, seed_column),
        "## Verdicts",
        markdown_table(
            ["claim", "arms", "verdict"],
            [
                [claim.text, f"`{claim.arm}` against `{claim.baseline}`", verdict(differences)]
                for claim, differences in compared.items()
            ],
        ),
        *(_claim_section(claim, differences) for claim, differences in compared.items()),
        *(_table_section(title, table, partition_column, names) for title, names in TABLES.items()),
        *(f"## {caption}\n\n![{caption}]({file})" for caption, file in figures.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _conditions(table: pd.DataFrame, seed_column: str) -> str:
    """Name what all scores were made with; a condition that varies is listed with its values."""
    names = [m.name for m in CONDITIONS if m.name in table.columns and m.name != "seed"]
    shown = {name: sorted(map(str, table[name].dropna().unique())) for name in names}
    seeds = ", ".join(str(seed) for seed in sorted(table[seed_column].unique()))
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


def _table_section(
    title: str, table: pd.DataFrame, partition_column: str, metrics: Sequence[str]
) -> str:
    known = [name for name in metrics if name in table.columns and table[name].notna().any()]
    if not known:
        return ""
    summary = summarize(table, [partition_column], known)
    columns = [with_spread(list(summary[n]), list(summary[f"{n}_std"]), n) for n in known]
    header = ["partition", "arm", *(describe_metric(name).title for name in known)]
    cells = [list(summary[partition_column].astype(str)), list(summary["arm"]), *columns]
    return f"## {title}\n\n" + markdown_table(header, list(zip(*cells, strict=True)))
