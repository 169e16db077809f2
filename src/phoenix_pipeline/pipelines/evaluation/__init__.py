"""Stage ``evaluation``: from images to scores."""

from phoenix_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
