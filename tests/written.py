"""What a training, an evaluation and an audit write, with what a test does not care about."""

from collections.abc import Mapping
from typing import Any

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.families.provenance import NetworkSettings, TrainingRecord
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.metrics.privacy.arm_audit import ArmAudit


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
        "trained_with": {"run": {"licence": None}, "partition": {"scheme": "iid"}},
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
