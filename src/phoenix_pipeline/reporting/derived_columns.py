"""Columns made of others: the share of a gap that an arm closes, and what is left of its start."""

import math
from collections.abc import Collection, Mapping

import pandas as pd

from phoenix_pipeline.reporting.vocabulary import GAP_CLOSED, LEFT_OF_START, describe_metric

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


def shares_left(by_round: pd.DataFrame) -> dict[str, float]:
    """Return, by feature space, the last kept round's distance over that of round 0.

    ``by_round``: what ``arms.score_rounds`` makes. Nothing where it has no round 0: the arm started
    from random weights.
    """
    if by_round.empty or int(by_round["round"].min()) != 0:
        return {}
    rows = by_round.sort_values("round")
    first, last = rows.iloc[0], rows.iloc[-1]
    spaces = [str(name) for name in by_round if str(name).startswith("fid_")]
    return {
        space.removeprefix("fid_"): float(last[space] / first[space])
        for space in spaces
        if first[space] > 0
    }


def add_start_shares(
    table: pd.DataFrame, by_round: Mapping[str, pd.DataFrame], before: str
) -> pd.DataFrame:
    """Return ``table`` with a column ``left_of_start_<space>`` for each space that has a share.

    ``table``: of ``compare_arms``; ``by_round``: by arm. The columns go in front of
    ``before``.
    """
    shares = {arm: shares_left(rows) for arm, rows in by_round.items()}
    spaces = dict.fromkeys(space for own in shares.values() for space in own)
    result = table.copy()
    for space in spaces:
        values = [shares.get(str(arm), {}).get(space) for arm in table["arm"]]
        place = list(result.columns).index(before)
        result.insert(place, LEFT_OF_START.name + space, pd.Series(values, dtype="float64"))
    return result
