"""Stage ``sampling``: from a model to images."""

from phoenix_pipeline.pipelines.sampling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
