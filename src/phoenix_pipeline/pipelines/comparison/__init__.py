"""Stage ``comparison``: all arms side by side."""

from phoenix_pipeline.pipelines.comparison.pipeline import create_pipeline

__all__ = ["create_pipeline"]
