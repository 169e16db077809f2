"""The pipelines by name: every arm, every stage of all arms, and all of it."""

from kedro.pipeline import Pipeline

from phoenix_pipeline.arms import ARMS
from phoenix_pipeline.pipelines import (
    comparison,
    evaluation,
    federated_training,
    partition,
    privacy_audit,
    sampling,
    shared_pool,
)
from phoenix_pipeline.pipelines.evaluation.pipeline import create_reference_pipeline

_ARM_STAGES = {
    "shared_pool": shared_pool,
    "federated_training": federated_training,
    "sampling": sampling,
    "evaluation": evaluation,
}


def register_pipelines() -> dict[str, Pipeline]:
    """Return the project's pipelines; the names are what ``kedro run --pipelines`` takes."""
    images = partition.create_pipeline()
    references = create_reference_pipeline()
    stages = {
        name: sum((stage.create_pipeline(arm) for arm in ARMS), Pipeline([]))
        for name, stage in _ARM_STAGES.items()
    }
    stages["evaluation"] += references
    # On request only: `kedro run --pipelines privacy_audit` after the arms were trained.
    stages["privacy_audit"] = sum(
        (privacy_audit.create_pipeline(arm) for arm in ARMS), Pipeline([])
    )
    arms = {
        arm: sum(
            (stage.create_pipeline(arm) for stage in _ARM_STAGES.values()), images + references
        )
        for arm in ARMS
    }
    compared = comparison.create_pipeline(ARMS)
    return {
        "partition": images,
        **stages,
        "comparison": compared,
        **arms,
        "__default__": sum(arms.values(), compared),
    }
