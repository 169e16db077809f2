"""Stage ``partition``: images and who holds them."""

from phoenix_pipeline.pipelines.partition.pipeline import create_pipeline

__all__ = ["create_pipeline"]
