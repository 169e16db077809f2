"""Tables as LaTeX, to go into a paper as they are (package ``booktabs``)."""

from collections.abc import Sequence

import pandas as pd

from phoenix_pipeline.metrics.metric import Metric
from phoenix_pipeline.reporting.sweep_tables import with_spread
from phoenix_pipeline.reporting.vocabulary import describe_metric

# In the order in which they are replaced: the backslash first.
_ESCAPES = {
    "\\": r"\textbackslash ",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde ",
    "^": r"\textasciicircum ",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{EN DASH}": "--",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{LATIN SMALL LETTER E WITH ACUTE}": r"\'e",
}
_ESCAPED = str.maketrans(_ESCAPES)


def latex_text(text: str) -> str:
    """Return ``text`` with what LaTeX reads as commands written out."""
    return text.translate(_ESCAPED)


def latex_table(
    titles: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, bool]]]]
) -> str:
    """Return a ``tabular``: the first column to the left, the others to the right.

    ``titles``: of all columns. ``rows``: the first cell, and of each other its text and whether it
    is printed bold.
    """
    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}",
        "\\toprule",
        _line([latex_text(title) for title in titles]),
        "\\midrule",
    ]
    for name, cells in rows:
        written = [(latex_text(text or "\N{EN DASH}"), bold) for text, bold in cells]
        lines.append(
            _line([latex_text(name), *(f"\\textbf{{{t}}}" if bold else t for t, bold in written)])
        )
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def latex_title(metric: Metric) -> str:
    """Return a column's title with its feature space and the arrow to better."""
    space = f" ({metric.space})" if metric.space else ""
    return f"{metric.label}{space} {metric.arrow}".strip()


def latex_summary(summary: pd.DataFrame) -> str:
    """Return a sweep's summary, mean and spread over what was repeated.

    ``summary``: from :func:`~phoenix_pipeline.reporting.sweep_tables.summarize`. The arm comes
    first, then the axes.
    """
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


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"
