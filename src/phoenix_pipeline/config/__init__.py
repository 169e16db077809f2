"""One Pydantic model per parameter group: the only description of what a user may set.

Kedro builds these from ``conf/`` before any node runs, because they are the nodes' type hints.
Unknown keys are errors. ``docs/parameters.md`` is generated from the descriptions.
"""

from typing import cast

from phoenix_pipeline.config.aggregation import (
    AggregationConfig,
    ClipNormConfig,
    ServerOptimizerConfig,
)
from phoenix_pipeline.config.base import Group, deep_merge
from phoenix_pipeline.config.compression import CompressionConfig, LinkConfig
from phoenix_pipeline.config.data import ImagesConfig, PartitionConfig, RunConfig, SharedPoolConfig
from phoenix_pipeline.config.differential_privacy import (
    AdaptiveClippingConfig,
    DifferentialPrivacyConfig,
    DpSgdConfig,
)
from phoenix_pipeline.config.evaluation import (
    EXTRACTORS,
    ClassifierConfig,
    EvaluationConfig,
    JudgeFileConfig,
    PrivacyAuditConfig,
    SamplingConfig,
)
from phoenix_pipeline.config.federation import FederationConfig
from phoenix_pipeline.config.model import (
    DcganConfig,
    LoraConfig,
    ModelConfig,
    NoiseConfig,
    UNetConfig,
)
from phoenix_pipeline.config.rounds import (
    DeploymentConfig,
    LocalWorkConfig,
    PersonalLayersConfig,
    RayConfig,
    ThresholdFilterConfig,
)
from phoenix_pipeline.config.training import AutoencoderConfig, TrainingConfig

__all__ = [
    "ARM_GROUPS",
    "EXTRACTORS",
    "SHARED_GROUPS",
    "AdaptiveClippingConfig",
    "AggregationConfig",
    "ArmSettings",
    "AutoencoderConfig",
    "ClassifierConfig",
    "ClipNormConfig",
    "CompressionConfig",
    "DcganConfig",
    "DeploymentConfig",
    "DifferentialPrivacyConfig",
    "DpSgdConfig",
    "EvaluationConfig",
    "FederationConfig",
    "Group",
    "ImagesConfig",
    "JudgeFileConfig",
    "LinkConfig",
    "LocalWorkConfig",
    "LoraConfig",
    "ModelConfig",
    "NoiseConfig",
    "PartitionConfig",
    "PersonalLayersConfig",
    "PrivacyAuditConfig",
    "RayConfig",
    "RunConfig",
    "SamplingConfig",
    "ServerOptimizerConfig",
    "SharedPoolConfig",
    "ThresholdFilterConfig",
    "TrainingConfig",
    "UNetConfig",
    "deep_merge",
]

# Groups that all arms share.
SHARED_GROUPS: dict[str, type[Group]] = {
    "run": RunConfig,
    "images": ImagesConfig,
    "partition": PartitionConfig,
    "autoencoder": AutoencoderConfig,
    "evaluation": EvaluationConfig,
    "privacy_audit": PrivacyAuditConfig,
}


class ArmSettings(Group):
    """All groups of one arm."""

    shared_pool: SharedPoolConfig = SharedPoolConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    personal_layers: PersonalLayersConfig = PersonalLayersConfig()
    threshold_filter: ThresholdFilterConfig = ThresholdFilterConfig()
    sampling: SamplingConfig = SamplingConfig()


ARM_GROUPS: dict[str, type[Group]] = {
    name: cast(type[Group], field.annotation) for name, field in ArmSettings.model_fields.items()
}
