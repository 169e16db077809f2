"""Samples of each arm by round, for the page's slider."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from phoenix_pipeline.reporting.embedding import png_data_uri


@dataclass(frozen=True)
class Frame:
    """The samples after ``round``: ``image`` is a data URI."""

    round: int
    image: str


@dataclass(frozen=True)
class Growth:
    """``frames``: arm -> its samples, the earliest first; ``rounds``: all of them, each once.

    ``without``: arms that have none. ``num_samples``: scored for each.
    """

    frames: Mapping[str, Sequence[Frame]]
    rounds: Sequence[int]
    without: Sequence[str]
    num_samples: int


def show_growth(tables: Mapping[str, pd.DataFrame]) -> Growth | None:
    """Return the samples by round of the arms that have some; None where no arm has.

    ``tables``: arm -> what ``arms.score_rounds`` makes, empty for an arm without.
    """
    found = {arm: table for arm, table in tables.items() if len(table)}
    if not found:
        return None
    frames = {
        arm: [
            Frame(int(number), png_data_uri(png))
            for number, png in zip(table["round"], table["grid"], strict=True)
        ]
        for arm, table in found.items()
    }
    every = pd.concat(found.values())
    return Growth(
        frames=frames,
        rounds=sorted(set(map(int, every["round"]))),
        without=[arm for arm in tables if arm not in found],
        num_samples=int(every["num_samples"].min()),
    )
