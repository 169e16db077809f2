"""Wiring of stage ``evaluation``: what all arms share, and one arm's scores."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.arms.arm_model import write_cards
from phoenix_pipeline.arms.references import prepare_references, score_floor, train_label_judge
from phoenix_pipeline.arms.score_rounds import score_rounds
from phoenix_pipeline.pipelines.arm import ARM_SETTINGS, in_namespace, in_stage
from phoenix_pipeline.pipelines.evaluation.nodes import evaluate

_IMAGES = ["train_images", "test_images"]
_SETTINGS = ["params:evaluation", "params:run"]
_HELD_AGAINST = ["label_judge", "reference_folder"]


def create_reference_pipeline() -> Pipeline:
    """Return what is made once and read by every arm: label judge, references, floor."""
    judge, references = _HELD_AGAINST
    floor = "reference_scores"
    return in_stage(
        [
            node(train_label_judge, [*_IMAGES, *_SETTINGS], judge, name="train_label_judge"),
            node(
                prepare_references,
                [*_IMAGES, judge, *_SETTINGS],
                references,
                name="prepare_references",
            ),
            node(
                score_floor,
                [*_IMAGES, *_HELD_AGAINST, *_SETTINGS],
                floor,
                name="score_real_images",
            ),
        ],
        "evaluation",
        group="references",
    )


def create_pipeline(arm: str) -> Pipeline:
    """Return the stage in the namespace ``arm``."""
    against, left = [*_IMAGES, *_HELD_AGAINST], ["checkpoints", "model", "rounds"]
    scored = ["samples", *against, "partition", ARM_SETTINGS, *_SETTINGS]
    by_round = [*left, *against, ARM_SETTINGS, *_SETTINGS]
    cards = ["model_card", "sample_card"]
    return in_namespace(
        [
            node(evaluate, scored, ["metrics", "sample_classes"], name="evaluate"),
            node(write_cards, ["model", "samples", "metrics"], cards, name="write_cards"),
            node(score_rounds, by_round, "scores_by_round", name="score_rounds"),
        ],
        arm,
        "evaluation",
    )
