"""How much of the gap between federated averaging and training in one place a strategy closes."""

import math
from collections.abc import Collection

import pandas as pd

from phoenix_pipeline.reporting.vocabulary import GAP_CLOSED, describe_metric

DEFAULT_ARM, CEILING_ARM = "fedavg", "centralized"
# A smaller gap, as a share of fedavg's distance, is what another seed may change.
_LEAST_GAP = 0.05


def doubtful_shares(table: pd.DataFrame) -> list[str]:
    """Return each share outside of what is credible, such as ``dcgan -9.6 in pixels``."""
    low, high = GAP_CLOSED.credible or (-math.inf, math.inf)
    return [
        f"{arm} {share:.1f} in {describe_metric(name).space}"
        for name in table.columns
        if name.startswith(GAP_CLOSED.name)
        for arm, share in zip(table["arm"], table[name], strict=True)
        if pd.notna(share) and not low <= share <= high
    ]


def add_gap_closed(table: pd.DataFrame, before: str, beside: Collection[str] = ()) -> pd.DataFrame:
    """Return ``table`` with a column ``gap_closed_<space>`` for each ``fid_<space>``.

    (fedavg - arm) / (fedavg - centralized): 0 is as good as ``fedavg``, 1 as ``centralized``, below
    0 worse than ``fedavg``. It is missing for those two, which are 0 and 1 by definition, and for
    the rows ``beside``, which are no arms; there is no such column where ``fedavg`` is not worse
    than ``centralized`` by a twentieth of its distance, or either is missing. The columns are put
    in front of ``before``.
    """
    arms = [str(arm) for arm in table["arm"]]
    if not {DEFAULT_ARM, CEILING_ARM} <= set(arms):
        return table
    result = table.copy()
    others = ~table["arm"].isin([DEFAULT_ARM, CEILING_ARM, *beside])
    for name in [column for column in table.columns if column.startswith("fid_")]:
        values = dict(zip(arms, table[name].astype("float64").tolist(), strict=True))
        default, gap = values[DEFAULT_ARM], values[DEFAULT_ARM] - values[CEILING_ARM]
        if gap > _LEAST_GAP * default:
            column = GAP_CLOSED.name + name.removeprefix("fid_")
            place = list(result.columns).index(before)
            result.insert(place, column, ((default - table[name]) / gap).where(others))
    return result
