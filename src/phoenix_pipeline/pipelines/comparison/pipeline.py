"""Wiring of stage ``comparison`` over the given arms."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import in_stage
from phoenix_pipeline.pipelines.comparison.nodes import announce, compare
from phoenix_pipeline.pipelines.comparison.results import PARTS


def create_pipeline(arms: tuple[str, ...]) -> Pipeline:
    """Return the stage."""
    inputs = {f"{arm}__{part}": f"{arm}.{name}" for arm in arms for part, name in PARTS.items()}
    shared = {
        "parameters": "parameters",
        "floor": "reference_scores",
        "test_images": "test_images",
    }
    return in_stage(
        [
            node(
                compare(arms),
                {**shared, **inputs},
                [
                    "comparison",
                    "report",
                    "scores_figure",
                    "rounds_figure",
                    "class_histograms_figure",
                    "grids_figure",
                ],
                name="compare_arms",
            ),
            node(announce, ["comparison", "report", "parameters"], None, name="announce"),
        ],
        "comparison",
    )
