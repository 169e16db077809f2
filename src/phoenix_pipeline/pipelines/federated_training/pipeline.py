"""Wiring of stage ``federated_training`` of one arm."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import ARM_SETTINGS, in_namespace
from phoenix_pipeline.pipelines.federated_training.nodes import describe_model, train


def create_pipeline(arm: str) -> Pipeline:
    """Return the stage in the namespace ``arm``."""
    return in_namespace(
        [
            node(
                train,
                [
                    "train_images",
                    "test_images",
                    "client_images",
                    "shared_pool",
                    "model_summary",
                    ARM_SETTINGS,
                    "params:run",
                    "params:images",
                    "params:partition",
                    "checkpoints",
                ],
                ["model", "rounds", "trained_images"],
                name="train",
            ),
            node(describe_model, "model", "model_description", name="describe_model"),
        ],
        arm,
        "federated_training",
    )
