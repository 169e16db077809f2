"""What came out, in a few sentences at the top of the report."""

import math
from collections.abc import Collection

import pandas as pd

from phoenix_pipeline.reporting.columns import (
    CEILING_ARM,
    DEFAULT_ARM,
    FLOOR_NAME,
    GAP_CLOSED,
    describe_metric,
    doubtful_shares,
)
from phoenix_pipeline.reporting.comparison import headline_columns
from phoenix_pipeline.reporting.formatting import format_values

_LITTLE = 0.02
# Arms whose coverage or recall is below this share of real images' have not learned to draw them.
_LEARNED = 0.1
# Only a model that is asked for classes has this score.
_AS_ASKED = "label_accuracy"


def summarise(table: pd.DataFrame, pooled: Collection[str]) -> list[str]:
    """Return the sentences; none where no arm has a Frechet distance.

    ``table``: as :func:`~phoenix_pipeline.reporting.comparison.compare_arms` returns it.
    ``pooled``: arms whose images lie in one place; they are a ceiling, no winners.
    """
    score = next((name for name in headline_columns(table) if name.startswith("fid_")), None)
    if score is None:
        return []
    rows = table.set_index("arm")
    values = rows[score].astype("float64")
    rivals = values.drop([name for name in (*pooled, FLOOR_NAME) if name in values]).dropna()
    if unlike := _unlike(rows, score):
        return unlike
    if rivals.empty:
        return [_alone(values.dropna().index[0], rows, score)]
    best = str(rivals.idxmin())
    if len(rivals) == 1:
        first = _alone(best, rows, score)
    else:
        first = _best(best, rows, score)
    # All that is said of "it" follows the sentence that names it.
    own = [*_gap(best, rows, score), *_traffic(best, rows), *_attacked(best, rows)]
    alike = [*_best_single(best, rivals, rows, score), *_best_untold(best, rivals, rows, score)]
    return [first, *own, *alike]


def _unlike(rows: pd.DataFrame, score: str) -> list[str]:
    """Return a warning in place of a winner where no arm's samples resemble the real images."""
    for metric in ("coverage", "recall"):
        column = f"{metric}_{score.removeprefix('fid_')}"
        real = _number(rows, FLOOR_NAME, column)
        if math.isnan(real):
            continue
        covered = rows[column].drop(FLOOR_NAME).astype("float64").dropna()
        if len(covered) and covered.max() < _LEARNED * real:
            return [
                "No arm draws images like the real ones yet, so which one comes closest says "
                f"nothing: {metric} is at most {covered.max():.3f}, and {real:.3f} for "
                f"{FLOOR_NAME}.",
                "Train longer (federation.num_rounds, federation.local_work.amount).",
            ]
    return []


def _write(rows: pd.DataFrame, arm: str, name: str) -> str:
    """Return a value with as many decimals as tell the arms apart; real images are far below."""
    value = [rows.at[arm, name]]
    arms = value if arm == FLOOR_NAME else list(rows[name].drop(FLOOR_NAME, errors="ignore"))
    return format_values(value, describe_metric(name), like=arms)[0]


def _number(rows: pd.DataFrame, arm: str, name: str) -> float:
    """Return a value of the table; NaN where it has none."""
    if arm not in rows.index or name not in rows:
        return math.nan
    value = rows[name].astype("float64").get(arm)
    return math.nan if value is None else float(value)


def _alone(arm: str, rows: pd.DataFrame, score: str) -> str:
    return f"{arm} reaches a {_label(score)} of {_write(rows, arm, score)}{_beside(rows, score)}."


def _best(arm: str, rows: pd.DataFrame, score: str) -> str:
    own, default = (_number(rows, name, score) for name in (arm, DEFAULT_ARM))
    against = ", hardly less than" if default - own < _LITTLE * default else " against"
    compared = ""
    if arm != DEFAULT_ARM and DEFAULT_ARM in rows.index:
        compared = f"{against} {_write(rows, DEFAULT_ARM, score)} of {DEFAULT_ARM}"
    return (
        f"Of the arms that keep the images apart, {arm} comes closest to the real images: "
        f"{_label(score)} {_write(rows, arm, score)}{compared}{_beside(rows, score)}."
    )


def _best_single(best: str, rivals: pd.Series, rows: pd.DataFrame, score: str) -> list[str]:
    """Return which arm is best with one model for all, where ``best`` has one at each client."""
    if math.isnan(models := _number(rows, best, "num_clients")):
        return []
    has_one = [arm for arm in rivals.index if math.isnan(_number(rows, str(arm), "num_clients"))]
    if not has_one:
        return []
    other = str(rivals[has_one].idxmin())
    return [
        f"Its samples come from {models:.0f} models, one at each client; of the arms with one "
        f"model for all, {other} comes closest: {_write(rows, other, score)}."
    ]


def _best_untold(best: str, rivals: pd.Series, rows: pd.DataFrame, score: str) -> list[str]:
    """Return which arm is best without labels, where ``best`` is asked for given classes."""
    untold = [arm for arm in rivals.index if math.isnan(_number(rows, str(arm), _AS_ASKED))]
    if best in untold or not untold:
        return []
    other = str(rivals[untold].idxmin())
    return [
        f"It learns the labels of the images and is told how often to draw each class; of the arms "
        f"that are not, {other} comes closest: {_write(rows, other, score)}."
    ]


def _beside(rows: pd.DataFrame, score: str) -> str:
    """Return what the ceiling and real images get."""
    named = [(CEILING_ARM, f"{CEILING_ARM} gets"), (FLOOR_NAME, f"{FLOOR_NAME} get")]
    parts = [
        f"{verb} {_write(rows, name, score)}"
        for name, verb in named
        if not math.isnan(_number(rows, name, score))
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _label(score: str) -> str:
    metric = describe_metric(score)
    return f"{metric.label} ({metric.space})" if metric.space else metric.label


def _gap(arm: str, rows: pd.DataFrame, score: str) -> list[str]:
    column = GAP_CLOSED.name + score.removeprefix("fid_")
    share = _number(rows, arm, column)
    if not share > _LITTLE or doubtful_shares(rows.loc[[arm], [column]].reset_index()):
        return []
    return [f"It closes {share:.0%} of the gap between {DEFAULT_ARM} and {CEILING_ARM}."]


def _traffic(arm: str, rows: pd.DataFrame) -> list[str]:
    own, default = (_number(rows, name, "bytes_total") for name in (arm, DEFAULT_ARM))
    if arm == DEFAULT_ARM or math.isnan(own) or not default > 0:
        return []
    change = own / default - 1
    if abs(change) < _LITTLE:
        return [f"Its traffic is that of {DEFAULT_ARM}, {_write(rows, arm, 'bytes_total')}."]
    how = "less" if change < 0 else "more"
    total = _write(rows, arm, "bytes_total")
    return [f"Its traffic is {total}, {abs(change):.0%} {how} than that of {DEFAULT_ARM}."]


def _attacked(arm: str, rows: pd.DataFrame) -> list[str]:
    auc = _number(rows, arm, "membership_auc")
    if math.isnan(auc):
        return []
    return [f"The strongest attack tells its training images with an AUC of {auc:.2f} (0.5: none)."]
