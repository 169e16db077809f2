"""Stage ``autoencoder``: on request, an autoencoder for arms that learn latents."""

from phoenix_pipeline.pipelines.autoencoder.pipeline import create_pipeline

__all__ = ["create_pipeline"]
