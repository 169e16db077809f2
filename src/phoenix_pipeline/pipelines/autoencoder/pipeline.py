"""Wiring of stage ``autoencoder``; it is no part of a run that does not ask for it."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.arms.autoencoder import train_pool_autoencoder
from phoenix_pipeline.pipelines.arm import in_stage


def create_pipeline() -> Pipeline:
    """Return the stage."""
    return in_stage(
        [
            node(
                train_pool_autoencoder,
                [
                    "train_images",
                    "test_images",
                    "partition",
                    "params:autoencoder",
                    "params:run",
                ],
                "autoencoder",
                name="train_autoencoder",
            ),
        ],
        "autoencoder",
    )
