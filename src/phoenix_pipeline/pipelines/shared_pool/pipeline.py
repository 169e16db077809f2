"""Wiring of stage ``shared_pool`` of one arm."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.arms.setup import set_up_arm
from phoenix_pipeline.pipelines.arm import ARM_SETTINGS, in_namespace
from phoenix_pipeline.pipelines.shared_pool.nodes import name_folder, plot_clients


def create_pipeline(arm: str) -> Pipeline:
    """Return the stage in the namespace ``arm``."""
    return in_namespace(
        [
            node(name_folder(arm), "all_checkpoints", "checkpoints", name="find_checkpoints"),
            node(
                set_up_arm,
                [
                    "train_images",
                    "test_images",
                    "partition",
                    ARM_SETTINGS,
                    "params:run",
                    "checkpoints",
                ],
                ["client_images", "shared_pool", "model_summary"],
                name="set_up",
            ),
            node(
                plot_clients,
                ["train_images", "client_images", ARM_SETTINGS],
                "clients_figure",
                name="plot_clients",
            ),
        ],
        arm,
        "shared_pool",
    )
