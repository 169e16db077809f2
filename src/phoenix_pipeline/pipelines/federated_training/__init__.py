"""Stage ``federated_training``: from images to a model."""

from phoenix_pipeline.pipelines.federated_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
