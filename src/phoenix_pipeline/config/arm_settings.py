"""The groups of a run by name: those that all arms share, and those that an arm has for itself."""

from typing import cast

from phoenix_pipeline.config.autoencoder import AutoencoderConfig
from phoenix_pipeline.config.base import Group
from phoenix_pipeline.config.data import ImagesConfig, PartitionConfig, RunConfig, SharedPoolConfig
from phoenix_pipeline.config.evaluation import EvaluationConfig, SamplingConfig
from phoenix_pipeline.config.federation import FederationConfig
from phoenix_pipeline.config.model import ModelConfig
from phoenix_pipeline.config.privacy import PrivacyAuditConfig
from phoenix_pipeline.config.rounds import PersonalLayersConfig, ThresholdFilterConfig
from phoenix_pipeline.config.training import TrainingConfig

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
