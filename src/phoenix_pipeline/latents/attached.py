"""The autoencoder beside a network that learns latents.

It is no part of the network: nothing trains, sends or averages it. Whoever opens a network to draw
with it, or to look at images with it, attaches it.
"""

from typing import Any

from torch import Tensor, nn

from phoenix_pipeline.images import to_model_range
from phoenix_pipeline.latents.autoencoder import Autoencoder
from phoenix_pipeline.latents.space import ImageShape

_ATTRIBUTE = "_phoenix_autoencoder"


def attach(network: nn.Module, autoencoder: Autoencoder | None) -> nn.Module:
    """Return ``network``, which has ``autoencoder`` beside it from now on."""
    setattr(network, _ATTRIBUTE, autoencoder)
    return network


def autoencoder_of(network: nn.Module) -> Autoencoder | None:
    """Return what was attached to ``network``; None where it sees pixels."""
    found: Any = getattr(network, _ATTRIBUTE, None)
    return found if isinstance(found, Autoencoder) else None


def shape_in(network: nn.Module, image_shape: ImageShape) -> ImageShape:
    """Return the shape (C, H, W) in which ``network`` sees images of ``image_shape``."""
    autoencoder = autoencoder_of(network)
    return autoencoder.space.shape_of(image_shape) if autoencoder else image_shape


def as_seen(network: nn.Module, images: Tensor) -> Tensor:
    """Return uint8 ``images`` [N, C, H, W] as ``network`` sees them: latents, or in [-1, 1]."""
    autoencoder = autoencoder_of(network)
    return autoencoder.encode(images) if autoencoder else to_model_range(images)
