"""What a federation added to the weights that it started from."""

from collections.abc import Mapping

import pandas as pd

from phoenix_pipeline.reporting.vocabulary import LEFT_OF_START

_START = 0


def shares_left(by_round: pd.DataFrame) -> dict[str, float]:
    """Return, by feature space, the last kept round's distance over that of round 0.

    ``by_round``: what ``arms.score_rounds`` makes. Nothing where it has no round 0: the arm started
    from random weights.
    """
    if by_round.empty or int(by_round["round"].min()) != _START:
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
