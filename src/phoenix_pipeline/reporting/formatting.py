"""Numbers and tables as people read them: decimals that tell, units, Markdown and LaTeX."""

import math
from collections.abc import Sequence
from statistics import median_low

import pandas as pd

from phoenix_pipeline.metrics.metric import Metric

MISSING = "\N{EN DASH}"
# Behind a number that is not to be believed.
DOUBTFUL = "?"


def format_values(
    values: Sequence[object], metric: Metric, like: Sequence[object] | None = None
) -> list[str]:
    """Write one column's values with the same number of decimals; missing values become ``""``.

    ``like``: other values of the metric, whose decimals to use. Numbers outside of what is credible
    for the metric have a mark behind them.
    """
    if metric.kind == "text":
        return ["" if _missing(value) else str(value) for value in values]
    numbers = _numbers(values)
    texts = _write(numbers, metric, numbers if like is None else _numbers(like))
    # What is written like others is a spread or a difference of the metric, no value of it.
    if metric.credible is None or like is not None:
        return texts
    low, high = metric.credible
    doubtful = [bool(text) and not low <= x <= high for text, x in zip(texts, numbers, strict=True)]
    return [f"{t}{DOUBTFUL}" if doubt else t for t, doubt in zip(texts, doubtful, strict=True)]


def _write(numbers: Sequence[float], metric: Metric, like: Sequence[float]) -> list[str]:
    write = {"count": "{:,.0f}".format, "bytes": format_bytes, "seconds": _seconds}.get(metric.kind)
    if write is None:
        decimals = _decimals(like)
        return ["" if math.isnan(x) else f"{x:,.{decimals}f}" for x in numbers]
    return ["" if math.isnan(x) else write(x) for x in numbers]


def format_bytes(value: float) -> str:
    """Write a byte count in decimal units with three significant digits (``61.4 MB``)."""
    if value < 1000:
        return f"{value:.0f} B"
    power = min(int(math.log10(value) // 3), 5)
    scaled = value / 1000**power
    return f"{scaled:.{max(0, 2 - int(math.log10(scaled)))}f} {' kMGTP'[power]}B"


def _missing(value: object) -> bool:
    return value == "" if isinstance(value, str) else bool(pd.isna(value))  # type: ignore[call-overload]


def _numbers(values: Sequence[object]) -> list[float]:
    return [math.nan if _missing(value) else float(str(value)) for value in values]


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    minutes = value / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _decimals(numbers: Sequence[float]) -> int:
    """Give the column's middle value three significant digits; whole columns get none."""
    present = [abs(x) for x in numbers if math.isfinite(x) and x]
    if not present or all(x == int(x) for x in present):
        return 0
    return max(0, min(4, 2 - math.floor(math.log10(median_low(present)))))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


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

    def cell(text: str, bold: bool) -> str:
        written = latex_text(text or MISSING)
        return f"\\textbf{{{written}}}" if bold else written

    table = pd.DataFrame(
        [[latex_text(name), *(cell(*each) for each in cells)] for name, cells in rows],
        columns=pd.Index(map(latex_text, titles)),
    )
    columns = f"l{'r' * (len(titles) - 1)}"
    text = table.to_latex(index=False, escape=False, column_format=columns)
    return f"% \\usepackage{{booktabs}}\n{text}"


def latex_title(metric: Metric) -> str:
    """Return a column's title with its feature space and the arrow to better."""
    space = f" ({metric.space})" if metric.space else ""
    return f"{metric.label}{space} {metric.arrow}".strip()
