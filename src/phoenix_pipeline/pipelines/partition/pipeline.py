"""Wiring of stage ``partition``; all arms share its outputs."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import in_stage
from phoenix_pipeline.pipelines.partition.nodes import (
    decode_images,
    partition_images,
    plot_partition,
)


def create_pipeline() -> Pipeline:
    """Return the stage."""
    return in_stage(
        [
            node(
                decode_images,
                ["raw_images", "params:images"],
                ["train_images", "test_images"],
                name="decode_images",
            ),
            node(
                partition_images,
                ["train_images", "params:partition", "params:run"],
                "partition",
                name="partition_images",
            ),
            node(
                plot_partition,
                ["partition", "train_images", "parameters"],
                "partition_figure",
                name="plot_partition",
            ),
        ],
        "partition",
        group="clients",
    )
