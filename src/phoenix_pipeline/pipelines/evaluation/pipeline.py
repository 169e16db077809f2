"""Wiring of stage ``evaluation``: what all arms share, and one arm's scores."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import in_namespace
from phoenix_pipeline.pipelines.evaluation.nodes import (
    evaluate,
    prepare_references,
    train_label_judge,
)


def create_reference_pipeline() -> Pipeline:
    """Return what is made once and read by every arm: label judge, references, floor."""
    return Pipeline(
        [
            node(
                train_label_judge,
                [
                    "train_images",
                    "test_images",
                    "params:evaluation",
                    "params:run",
                    "label_judge_cache",
                ],
                "label_judge",
                name="train_label_judge",
            ),
            node(
                prepare_references,
                [
                    "train_images",
                    "test_images",
                    "label_judge",
                    "params:evaluation",
                    "params:run",
                    "reference_cache",
                ],
                ["reference_folder", "reference_scores"],
                name="prepare_references",
            ),
        ]
    )


def create_pipeline(arm: str) -> Pipeline:
    """Return the stage in the namespace ``arm``."""
    return in_namespace(
        [
            node(
                evaluate,
                [
                    "samples",
                    "train_images",
                    "test_images",
                    "label_judge",
                    "reference_folder",
                    "params:evaluation",
                    "params:sampling",
                    "params:run",
                ],
                "metrics",
                name="evaluate",
            )
        ],
        arm,
    )
