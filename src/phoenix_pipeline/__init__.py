"""Phoenix: diffusion models trained across data owners who never share their images."""

__version__ = "0.1.0"
