"""Stage ``privacy_audit``: what an arm's models and samples give away of its training images."""

from phoenix_pipeline.pipelines.privacy_audit.pipeline import create_pipeline

__all__ = ["create_pipeline"]
