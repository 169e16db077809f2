"""What a training, an evaluation and an audit write, with what a test does not care about."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.families.provenance import NetworkSettings, TrainingRecord
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.metrics.privacy.arm_audit import ArmAudit
from phoenix_pipeline.reporting.arm_results import ArmResults, ScoredArm


def network_settings(model: ModelConfig, **changes: Any) -> NetworkSettings:
    """Return those of grey images of 8 pixels without classes or personal layers."""
    plain: dict[str, Any] = {
        "model": model.model_dump(mode="json"),
        "channels": 1,
        "image_size": 8,
        "seed": 3,
        "personal_layers": [],
        "class_names": [],
    }
    return {**plain, **changes}


def training_record(settings: Mapping[str, Any], **changes: Any) -> TrainingRecord:
    """Return what stays beside the models of two clients, who hold 30 and 10 images."""
    plain: dict[str, Any] = {
        "arm": "fedavg",
        "weights": "ema",
        "rounds": 2,
        "settings": dict(settings),
        "trained_with": {
            "run": {"licence": None, "seed": 3},
            "partition": {"scheme": "iid"},
            "federation": {"engine": "in_process", "pooled": False},
        },
        "data": {"train_images": "0123", "test_images": "4567", "client_images": "89ab"},
        "epsilon": None,
        "disclosure": ["Each client sent weights."],
        "num_examples": {"0": 30, "4": 10},
        "phoenix_pipeline": "1.0",
        "written": "2026-01-01T00:00:00+00:00",
    }
    return {**plain, **changes}


def arm_metrics(
    scores: Mapping[str, float], conditions: Mapping[str, Any] | None = None, **changes: Any
) -> ArmMetrics:
    """Return ``metrics.json`` with these ``scores``; ``conditions`` are beside the plain ones."""
    how: dict[str, Any] = {
        "reference_split": "train",
        "num_samples": 200,
        "num_reference": 1437,
        "weights": "ema",
        "weights_digest": "abcd",
        "sampling": {"grid_images": 16},
        "seed": 0,
        "evaluation": {},
        "train_images": "0123",
        "test_images": "4567",
    }
    plain: dict[str, Any] = {
        "class_histogram": None,
        "clients": {},
        "client_utility": {},
        "skipped": {},
    }
    return {"conditions": how | dict(conditions or {}), "scores": dict(scores), **plain, **changes}


def arm_audit(scores: Mapping[str, float], **changes: Any) -> ArmAudit:
    """Return ``privacy.json`` with these ``scores``."""
    conditions = {
        "weights": "ema",
        "weights_digest": "abcd",
        "num_train": 1437,
        "num_held_out": 360,
        "classes_matched": True,
        "seed": 0,
        "privacy_audit": {},
    }
    plain: dict[str, Any] = {
        "conditions": conditions,
        "membership": {"global_model": {}, "client_models": {}},
        "skipped": {},
        **dict.fromkeys(("blind", "copies", "reconstruction")),
    }
    return {**plain, "scores": dict(scores), **changes}


def scored_arms(
    metrics: Mapping[str, ArmMetrics],
    rounds: Mapping[str, pd.DataFrame] | None = None,
    *,
    audits: Mapping[str, ArmAudit] | None = None,
    marks: Mapping[str, str] | None = None,
    by_round: Mapping[str, pd.DataFrame] | None = None,
    pooled: Collection[str] = (),
) -> list[ScoredArm]:
    """Return the arms of ``metrics`` with what the others, by arm, have of them."""
    none = pd.DataFrame()
    return [
        ScoredArm(
            arm,
            own,
            rounds=(rounds or {}).get(arm, none),
            by_round=(by_round or {}).get(arm, none),
            audit=(audits or {}).get(arm),
            other_settings=(marks or {}).get(arm, ""),
            is_pooled=arm in pooled,
        )
        for arm, own in metrics.items()
    ]


def arm_results(arm: str, metrics: ArmMetrics, **changes: Any) -> ArmResults:
    """Return what is known of an arm of which nothing but scores and settings was written.

    ``trained_with``, ``disclosure`` and ``weights_digest`` go into its ``phoenix.json``.
    """
    made = ("trained_with", "disclosure", "weights_digest", "written")
    own = {name: changes.pop(name) for name in made if name in changes}
    record = training_record({}, arm=arm, **own)
    plain: dict[str, Any] = {
        "description": {"weights_digest": "abcd", **record},
        "samples": Path("none"),
        "classes": pd.DataFrame(),
        "trained_images": pd.DataFrame(),
        "grid": Path("none"),
        "clients_figure": Path("none"),
        "model_card": "",
        "sample_card": "",
    }
    return ArmResults(arm, metrics, **{**plain, **changes})
