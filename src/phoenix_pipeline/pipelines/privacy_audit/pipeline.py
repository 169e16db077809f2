"""Wiring of stage ``privacy_audit`` of one arm."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import in_namespace
from phoenix_pipeline.pipelines.privacy_audit.nodes import audit_privacy


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
