"""Wiring of stage ``sampling`` of one arm."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import ARM_SETTINGS, in_namespace
from phoenix_pipeline.pipelines.sampling.nodes import draw_grid, draw_samples


def create_pipeline(arm: str) -> Pipeline:
    """Return the stage in the namespace ``arm``."""
    return in_namespace(
        [
            node(
                draw_samples,
                ["model", ARM_SETTINGS, "params:run"],
                "samples",
                name="sample",
            ),
            node(draw_grid, ["samples", ARM_SETTINGS], "grid", name="draw_grid"),
        ],
        arm,
        "sampling",
    )
