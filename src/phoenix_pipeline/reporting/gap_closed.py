"""How much of the gap between federated averaging and training in one place a strategy closes."""

from collections.abc import Collection

import pandas as pd

from phoenix_pipeline.reporting.vocabulary import CREDIBLE, GAP_CLOSED

DEFAULT_ARM, CEILING_ARM = "fedavg", "centralized"


def incredible_shares(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each share outside of :data:`CREDIBLE`; see :func:`add_gap_closed`."""
    low, high = CREDIBLE
    shares = {
        (str(row["arm"]), column.removeprefix(GAP_CLOSED)): float(row[column])
        for column in table.columns
        if column.startswith(GAP_CLOSED)
        for _, row in table.iterrows()
        if pd.notna(row[column])
    }
    return [
        f"“Gap closed” of {arm} is {share:.1f} by the features {space}, outside of {low:g} to "
        f"{high:g}: the gap between {DEFAULT_ARM} and {CEILING_ARM} is small there, or these "
        "features tell little of these images. Do not quote it."
        for (arm, space), share in shares.items()
        if not low <= share <= high
    ]


def add_gap_closed(table: pd.DataFrame, before: str, beside: Collection[str] = ()) -> pd.DataFrame:
    """Return ``table`` with a column ``gap_closed_<space>`` for each ``fid_<space>``.

    (fedavg - arm) / (fedavg - centralized): 0 is as good as ``fedavg``, 1 as ``centralized``, below
    0 worse than ``fedavg``. It is missing for those two, which are 0 and 1 by definition, and for
    the rows ``beside``, which are no arms; there is no such column where ``fedavg`` is not worse
    than ``centralized``, or either is missing. The columns are put in front of ``before``.
    """
    arms = [str(arm) for arm in table["arm"]]
    if not {DEFAULT_ARM, CEILING_ARM} <= set(arms):
        return table
    result = table.copy()
    others = ~table["arm"].isin([DEFAULT_ARM, CEILING_ARM, *beside])
    for name in [column for column in table.columns if column.startswith("fid_")]:
        values = dict(zip(arms, table[name].astype("float64").tolist(), strict=True))
        default, gap = values[DEFAULT_ARM], values[DEFAULT_ARM] - values[CEILING_ARM]
        if gap > 0:
            column = GAP_CLOSED + name.removeprefix("fid_")
            place = list(result.columns).index(before)
            result.insert(place, column, ((default - table[name]) / gap).where(others))
    return result
