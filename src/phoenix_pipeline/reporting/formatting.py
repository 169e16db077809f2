"""Numbers as people read them: bytes, counts, times, and scores with as many decimals as tell."""

import math
from collections.abc import Sequence
from statistics import median_low

import pandas as pd

from phoenix_pipeline.reporting.gap_closed import IMPLAUSIBLE_MARK, is_implausible
from phoenix_pipeline.reporting.metric import (
    Metric,
)
from phoenix_pipeline.reporting.vocabulary import GAP_CLOSED

MISSING = "\N{EN DASH}"


def format_values(
    values: Sequence[object], metric: Metric, like: Sequence[object] | None = None
) -> list[str]:
    """Write one column's values with the same number of decimals; missing values become ``""``.

    A share of the gap that is outside -1..1.5 is marked with ``*``.

    ``like``: other values of the metric, whose decimals to use.
    """
    if metric.kind == "text":
        return ["" if _missing(value) else str(value) for value in values]
    numbers = _numbers(values)
    write = {"count": _count, "bytes": format_bytes, "seconds": _seconds}.get(metric.kind)
    if write is None:
        decimals = _decimals(numbers if like is None else _numbers(like))
        marks = [_mark(x, metric) if like is None else "" for x in numbers]
        return [
            "" if math.isnan(x) else f"{x:,.{decimals}f}{mark}"
            for x, mark in zip(numbers, marks, strict=True)
        ]
    return ["" if math.isnan(x) else write(x) for x in numbers]


def format_bytes(value: float) -> str:
    """Write a byte count in decimal units with three significant digits (``61.4 MB``)."""
    if value < 1000:
        return f"{value:.0f} B"
    power = min(int(math.log10(value) // 3), 5)
    scaled = value / 1000**power
    return f"{scaled:.{max(0, 2 - int(math.log10(scaled)))}f} {' kMGTP'[power]}B"


def _mark(value: float, metric: Metric) -> str:
    return IMPLAUSIBLE_MARK if metric.name.startswith(GAP_CLOSED) and is_implausible(value) else ""


def _missing(value: object) -> bool:
    return value == "" if isinstance(value, str) else bool(pd.isna(value))  # type: ignore[call-overload]


def _numbers(values: Sequence[object]) -> list[float]:
    return [math.nan if _missing(value) else float(str(value)) for value in values]


def _count(value: float) -> str:
    return f"{value:,.0f}"


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
