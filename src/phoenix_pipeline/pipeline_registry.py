"""The pipelines by name: every arm of ``conf``, every stage of them, and all of it."""

from kedro.pipeline import Pipeline

from phoenix_pipeline.framework.arm_blocks import ALL_ARMS, arm_registry
from phoenix_pipeline.framework.project import open_config, project_folder
from phoenix_pipeline.pipelines.autoencoder import pipeline as autoencoder
from phoenix_pipeline.pipelines.comparison import pipeline as comparison
from phoenix_pipeline.pipelines.evaluation import pipeline as evaluation
from phoenix_pipeline.pipelines.federated_training import pipeline as federated_training
from phoenix_pipeline.pipelines.partition import pipeline as partition
from phoenix_pipeline.pipelines.privacy_audit import pipeline as privacy_audit
from phoenix_pipeline.pipelines.sampling import pipeline as sampling
from phoenix_pipeline.pipelines.shared_pool import pipeline as shared_pool

_ARM_STAGES = {
    "shared_pool": shared_pool,
    "federated_training": federated_training,
    "sampling": sampling,
    "evaluation": evaluation,
}


def register_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines of the session's arms, or those of KEDRO_ENV, by name."""
    if arm_registry.names:
        return build_pipelines(arm_registry.names, arm_registry.on_request)
    config = open_config(project_folder())
    return build_pipelines(config.arms, config.on_request)


def build_pipelines(arms: tuple[str, ...], on_request: tuple[str, ...] = ()) -> dict[str, Pipeline]:
    """Return the pipelines for ``arms``, which are compared in this order.

    ``on_request``: those of them that no stage and no plain run has.
    """
    usual = tuple(arm for arm in arms if arm not in on_request)
    images = partition.create_pipeline()
    references = evaluation.create_reference_pipeline()
    stages = {
        name: sum((stage.create_pipeline(arm) for arm in usual), Pipeline([]))
        for name, stage in _ARM_STAGES.items()
    }
    stages["evaluation"] += references
    # On request only: `kedro run --pipelines privacy_audit` after the arms were trained.
    stages["privacy_audit"] = sum(
        (privacy_audit.create_pipeline(arm) for arm in usual), privacy_audit.create_list(usual)
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
        "__default__": sum((by_arm[arm] for arm in usual), comparison.create_pipeline(usual)),
        ALL_ARMS: sum(by_arm.values(), compared),
    }
