"""Wiring of stage ``evaluation``: what all arms share, and one arm's scores."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.arms.model_card import write_cards
from phoenix_pipeline.arms.references import prepare_references, score_floor, train_label_judge
from phoenix_pipeline.arms.score_rounds import score_rounds
from phoenix_pipeline.pipelines.arm import ARM_SETTINGS, in_namespace, in_stage
from phoenix_pipeline.pipelines.evaluation.nodes import evaluate

_IMAGES = ["train_images", "test_images"]
_SETTINGS = ["params:evaluation", "params:run"]


def create_reference_pipeline() -> Pipeline:
    """Return what is made once and read by every arm: label judge, references, floor."""
    held_against = ["label_judge", "reference_folder"]
    return in_stage(
        [
            node(
                train_label_judge, [*_IMAGES, *_SETTINGS], "label_judge", name="train_label_judge"
            ),
            node(
                prepare_references,
                [*_IMAGES, "label_judge", *_SETTINGS],
                "reference_folder",
                name="prepare_references",
            ),
            node(
                score_floor,
                [*_IMAGES, *held_against, *_SETTINGS],
                "reference_scores",
                name="score_real_images",
            ),
        ],
        "evaluation",
        group="references",
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
                    "partition",
                    ARM_SETTINGS,
                    "params:evaluation",
                    "params:run",
                ],
                ["metrics", "sample_classes"],
                name="evaluate",
            ),
            node(
                write_cards,
                ["model", "samples", "metrics"],
                ["model_card", "sample_card"],
                name="write_cards",
            ),
            node(
                score_rounds,
                [
                    "checkpoints",
                    "model",
                    "rounds",
                    *_IMAGES,
                    "label_judge",
                    "reference_folder",
                    ARM_SETTINGS,
                    *_SETTINGS,
                ],
                "scores_by_round",
                name="score_rounds",
            ),
        ],
        arm,
        "evaluation",
    )
