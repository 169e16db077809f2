"""The pipelines by name: every arm of ``conf``, every stage of all arms, and all of it."""

from kedro.pipeline import Pipeline

from phoenix_pipeline.framework.arm_blocks import arm_registry
from phoenix_pipeline.framework.project import open_config, project_folder
from phoenix_pipeline.pipelines import (
    autoencoder,
    comparison,
    evaluation,
    federated_training,
    partition,
    privacy_audit,
    sampling,
    shared_pool,
)
from phoenix_pipeline.pipelines.evaluation.pipeline import create_reference_pipeline
from phoenix_pipeline.pipelines.privacy_audit.pipeline import create_list

_ARM_STAGES = {
    "shared_pool": shared_pool,
    "federated_training": federated_training,
    "sampling": sampling,
    "evaluation": evaluation,
}


def register_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines of the session's arms; without a session, those of KEDRO_ENV.

    Their names are what ``kedro run --pipelines`` takes.
    """
    return build_pipelines(arm_registry.names or open_config(project_folder()).arms)


def build_pipelines(arms: tuple[str, ...]) -> dict[str, Pipeline]:
    """Return the pipelines for ``arms``, which are compared in this order."""
    images = partition.create_pipeline()
    references = create_reference_pipeline()
    stages = {
        name: sum((stage.create_pipeline(arm) for arm in arms), Pipeline([]))
        for name, stage in _ARM_STAGES.items()
    }
    stages["evaluation"] += references
    # On request only: `kedro run --pipelines privacy_audit` after the arms were trained.
    stages["privacy_audit"] = sum(
        (privacy_audit.create_pipeline(arm) for arm in arms), create_list(arms)
    )
    by_arm = {
        arm: sum(
            (stage.create_pipeline(arm) for stage in _ARM_STAGES.values()), images + references
        )
        for arm in arms
    }
    compared = comparison.create_pipeline(arms)
    return {
        "partition": images,
        **stages,
        # On request only: `kedro run --pipelines autoencoder`, before arms that learn latents.
        "autoencoder": images + autoencoder.create_pipeline(),
        "comparison": compared,
        **by_arm,
        "__default__": sum(by_arm.values(), compared),
    }
