"""Wiring of stage ``privacy_audit`` of one arm."""

from typing import Any

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import in_namespace, in_stage
from phoenix_pipeline.pipelines.privacy_audit.nodes import audit_privacy


def list_audits(**audits: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the audit of each arm, for whoever waits for all of them."""
    return audits


def create_list(arms: tuple[str, ...]) -> Pipeline:
    """Return the node after the audits of ``arms``."""
    audits = {arm: f"{arm}.privacy" for arm in arms}
    return in_stage([node(list_audits, audits, "audits", name="list_audits")], "privacy_audit")


def create_pipeline(arm: str) -> Pipeline:
    """Return the stage in the namespace ``arm``."""
    return in_namespace(
        [
            node(
                audit_privacy,
                [
                    "model",
                    "samples",
                    "trained_images",
                    "train_images",
                    "test_images",
                    "params:privacy_audit",
                    "params:run",
                ],
                "privacy",
                name="audit_privacy",
            )
        ],
        arm,
        "privacy_audit",
    )
