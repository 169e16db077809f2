"""Wiring of stage ``shared_pool`` of one arm."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import in_namespace
from phoenix_pipeline.pipelines.shared_pool.nodes import assign_images, check_arm, plot_clients


def create_pipeline(arm: str) -> Pipeline:
    """Return the stage in the namespace ``arm``."""
    return in_namespace(
        [
            node(
                check_arm,
                [
                    "train_images",
                    "test_images",
                    "params:model",
                    "params:training",
                    "params:federation",
                    "params:personal_layers",
                    "params:threshold_filter",
                    "params:shared_pool",
                    "params:sampling",
                    "params:run",
                    "checkpoints",
                ],
                "model_summary",
                name="check",
            ),
            node(
                assign_images,
                [
                    "train_images",
                    "partition",
                    "params:shared_pool",
                    "params:federation",
                    "params:run",
                ],
                ["client_images", "shared_pool"],
                name="assign_images",
            ),
            node(
                plot_clients,
                ["train_images", "client_images", "params:federation"],
                "clients_figure",
                name="plot_clients",
            ),
        ],
        arm,
    )
