"""The paper's claims held against a sweep over partitions and seeds.

Phoenix (arXiv 2306.04098) claims that its diffusion model beats a federated GAN, that data sharing
and personalization with threshold filtering beat the default on non-IID data, and that traffic
falls. Two arms are compared seed by seed: both have the same partition and the same initial noise.
"""

from dataclasses import dataclass

import pandas as pd

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.metrics.components import extractor_spaces
from phoenix_pipeline.reporting.vocabulary import describe_metric

IID = "iid"
FIDELITY = tuple(extractor_spaces())
PRECISION_RECALL = (
    "precision_classifier",
    "recall_classifier",
    "precision_pixels",
    "recall_pixels",
)
MODE_COVERAGE = ("class_entropy", "class_kl", "classes_covered", "confident_share")
TRAFFIC = ("bytes_per_round", "bytes_total")
QUALITY = (*FIDELITY, *PRECISION_RECALL, *MODE_COVERAGE)


@dataclass(frozen=True)
class Claim:
    """``arm`` is better than ``baseline`` in ``metrics``; ``deciding`` ones make the verdict."""

    text: str
    arm: str
    baseline: str
    metrics: tuple[str, ...]
    deciding: tuple[str, ...]
    non_iid_only: bool


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "The diffusion model beats the GAN",
        "fedavg",
        "dcgan",
        QUALITY,
        (*FIDELITY, "class_kl"),
        False,
    ),
    Claim(
        "Data sharing beats the default on non-IID data",
        "data_sharing",
        "fedavg",
        QUALITY,
        (*FIDELITY, "class_kl"),
        True,
    ),
    Claim(
        "Personalization with filtering beats the default on non-IID data",
        "personalization",
        "fedavg",
        QUALITY,
        (*FIDELITY, "class_kl"),
        True,
    ),
    Claim(
        "Personalization lowers the traffic", "personalization", "fedavg", TRAFFIC, TRAFFIC, False
    ),
)


def paired_differences(
    table: pd.DataFrame, claim: Claim, partition_column: str, seed_column: str
) -> pd.DataFrame:
    """Return one row per partition and metric: both means, their difference, and whether it held.

    Columns: ``partition``, ``metric``, ``arm_mean``, ``arm_std``, ``baseline_mean``,
    ``baseline_std``, ``difference`` (arm - baseline, mean over the seeds that both have),
    ``difference_std`` (sample standard deviation), ``seeds``, ``deciding``, ``held``.

    ``held``: the arm is better on average, and by more than one standard deviation of the
    difference over the seeds; a metric that never varies holds when it is better at all. With
    fewer than two seeds, or where a metric has no better direction, nothing is said to hold.
    Metrics and partitions that were not measured in both arms are left out.
    """
    for column in (partition_column, seed_column, "arm"):
        if column not in table.columns:
            raise DataError(
                f"the claims need the column {column!r}; the table has "
                f"{', '.join(map(str, table.columns))}"
            )
    rows = []
    for partition, part in table.groupby(partition_column, sort=False):
        if claim.non_iid_only and partition == IID:
            continue
        by_seed = part.set_index([seed_column, "arm"])
        for metric in claim.metrics:
            if metric in by_seed.columns:
                pairs = by_seed[metric].astype("float64").unstack("arm")
                pairs = pairs.reindex(columns=[claim.arm, claim.baseline]).dropna()
                if len(pairs):
                    rows.append({"partition": partition, **_compare(pairs, claim, metric)})
    return pd.DataFrame(rows, columns=_COLUMNS)


def verdict(differences: pd.DataFrame) -> str:
    """Return ``held``, ``held in part (2 of 6)``, ``not held`` or ``not measured``.

    Counts the rows of deciding metrics.
    """
    deciding = differences[differences["deciding"].astype(bool)]
    held = int(deciding["held"].sum())
    if deciding.empty:
        return "not measured"
    if held == len(deciding):
        return "held"
    return f"held in part ({held} of {len(deciding)})" if held else "not held"


_COLUMNS = (
    "partition",
    "metric",
    "arm_mean",
    "arm_std",
    "baseline_mean",
    "baseline_std",
    "difference",
    "difference_std",
    "seeds",
    "deciding",
    "held",
)


def _compare(pairs: pd.DataFrame, claim: Claim, metric: str) -> dict[str, object]:
    arm, baseline = pairs[claim.arm], pairs[claim.baseline]
    difference = arm - baseline
    mean, spread = float(difference.mean()), float(difference.std())
    better = describe_metric(metric).better
    gain = -mean if better == "lower" else mean
    return {
        "metric": metric,
        "arm_mean": float(arm.mean()),
        "arm_std": float(arm.std()),
        "baseline_mean": float(baseline.mean()),
        "baseline_std": float(baseline.std()),
        "difference": mean,
        "difference_std": spread,
        "seeds": len(pairs),
        "deciding": metric in claim.deciding,
        # A single seed has no spread: NaN compares as false.
        "held": better is not None and gain > 0 and gain > spread,
    }
