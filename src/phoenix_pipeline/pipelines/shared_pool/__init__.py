"""Stage ``shared_pool``: what each client trains on."""

from phoenix_pipeline.pipelines.shared_pool.pipeline import create_pipeline

__all__ = ["create_pipeline"]
