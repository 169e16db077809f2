"""A small run, made so that its totals can be added up by hand."""

import math

import pandas as pd
import pytest

from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from tests.written import arm_metrics

NAN = math.nan
COLUMNS = (
    "round",
    "client_id",
    "num_examples",
    "images_trained",
    "loss",
    "seconds",
    "bytes_up",
    "bytes_down",
    "status",
    "score",
    "threshold",
    "connected",
    "reason",
)


@pytest.fixture
def rounds() -> pd.DataFrame:
    """Two clients, three rounds; client 1 fails in round 2 and is disconnected in round 3."""
    rows = [
        (1, 0, 30, 60, 0.5, 2.0, 100, 110, "ok", 2.0, 5.0, True, ""),
        (1, 1, 10, 20, 0.9, 1.0, 100, 110, "ok", 6.0, 5.0, True, ""),
        (2, 0, 30, 60, 0.3, 2.0, 100, 110, "ok", NAN, NAN, True, ""),
        (2, 1, 10, NAN, NAN, NAN, 0, 110, "did not answer", NAN, NAN, True, ""),
        (3, 0, 30, 60, 0.2, 2.0, 100, 110, "ok", 1.5, 4.0, True, ""),
        (3, 1, 10, 20, 0.8, 1.0, 100, 110, "ok", 7.0, 4.0, False, "above 4.0 twice"),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture
def metrics() -> dict[str, ArmMetrics]:
    """Three arms in an order that is not the alphabet's."""
    return {
        "fedavg": _arm({"fid_pixels": 5.25, "coverage_pixels": 0.5}, [0.7, 0.3]),
        "centralized": _arm(
            {"fid_pixels": 2.5, "coverage_pixels": 0.875, "class_kl": 0.01},
            [0.4, 0.6],
        ),
        "dcgan": _arm({"fid_pixels": 31.5}, [0.0, 1.0]),
    }


@pytest.fixture
def floor() -> dict[str, float]:
    return {"fid_pixels": 0.75, "coverage_pixels": 0.96, "num_samples": 100}


def _arm(scores: dict[str, float], shares: list[float]) -> ArmMetrics:
    return arm_metrics(
        scores,
        {"sampler": "ddim", "num_steps": 20, "timestep_spacing": "trailing"},
        class_histogram={
            "class_names": ["cat", "dog"],
            "counts": [round(200 * share) for share in shares],
            "shares": shares,
            "classifier_test_accuracy": 0.986,
            "classifier_majority_share": 0.25,
        },
        skipped={"fid_inception_v3": "no weights file"},
    )
