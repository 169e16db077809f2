"""An ``AutoencoderKL`` of diffusers: images to latents of about unit variance, and back.

Beside a network that learns latents it is no part of it: nothing trains, sends or averages it.
Whoever opens a network to draw with it, or to look at images with it, attaches it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from phoenix_pipeline.checkpoints import checksum, load_diffusers
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.images import to_model_range
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.latents.space import (
    KIND,
    ImageShape,
    LatentSpace,
    find_autoencoder,
    read_space,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# As `LDMPipeline` calls it: there an exported model has it.
FOLDER = "vqvae"
# Images at a time: at 256 pixels an autoencoder of Stable Diffusion takes about 1 GB for them.
_AT_A_TIME = 16
# What an autoencoder of this project says of the images that it was trained on.
_ORIGIN_FILE = "autoencoder.json"
_IMAGES = "pool_images"
_ATTRIBUTE = "_phoenix_autoencoder"


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """``network`` is at rest, in float32; ``space``: what its latents are like."""

    network: "AutoencoderKL"
    space: LatentSpace

    def encode(self, images: Tensor) -> Tensor:
        """Return latents float32 [N, c, h, w] of uint8 ``images`` [N, C, H, W], on their device.

        The mean of the posterior, shifted and scaled as the configuration says. Batches have one
        size, the last one is filled up: an image's latents do not depend on the others.
        """
        shift, scale = self.space.shift, _scale(self.network)

        def compute(part: Tensor) -> Tensor:
            x = to_model_range(part)
            filled = torch.cat([x, x.new_zeros((_AT_A_TIME - len(x), *x.shape[1:]))])
            mean: Tensor = self.network.encode(filled).latent_dist.mode()
            # In one layout, whatever the convolutions leave: that of a file.
            return mean[: len(x)].sub(shift).mul(scale).contiguous()

        return self._by_parts(images, compute)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images float32 [N, C, H, W], about in [-1, 1], of ``latents`` [N, c, h, w]."""
        shift, scale = self.space.shift, _scale(self.network)

        def compute(part: Tensor) -> Tensor:
            made: Tensor = self.network.decode(part.float().div(scale).add(shift)).sample
            return made

        return self._by_parts(latents, compute)

    def _by_parts(self, items: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        self.network.to(items.device)
        with torch.no_grad(), torch.autocast(items.device.type, enabled=False):
            return torch.cat([compute(part) for part in items.split(_AT_A_TIME)])

    def save(self, folder: Path) -> None:
        """Write the autoencoder's own folder, as safetensors."""
        self.network.save_pretrained(folder, safe_serialization=True)


def wrap(network: "AutoencoderKL", space: LatentSpace) -> Autoencoder:
    """Return ``network`` laid at rest, with its digest in ``space``."""
    network.eval().requires_grad_(False)
    # All that latents and images depend on.
    digest = checksum(network.state_dict(), repr((space.shift, _scale(network))))[:32]
    return Autoencoder(network, space.model_copy(update={"digest": digest}))


def load_autoencoder(folder: Path) -> Autoencoder:
    """Return the autoencoder in ``folder``, on the CPU, of safetensors; raises CheckpointError."""
    own = find_autoencoder(folder)
    files = sorted((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in own.iterdir())
    return _load(own, read_space(folder), tuple(files))


# A run's own, and that of its start.
@lru_cache(maxsize=2)
def _load(own: Path, space: LatentSpace, files: tuple[tuple[str, int, int], ...]) -> Autoencoder:
    """Read the weights, and compute their digest, once for each state of the ``files``."""
    from diffusers import AutoencoderKL

    network: AutoencoderKL = load_diffusers(
        AutoencoderKL, own, "", f"holds no complete {KIND}", "name a complete one"
    )
    return wrap(network.float(), space)


def _scale(network: "AutoencoderKL") -> float:
    config: Any = network.config
    return float(config.scaling_factor)


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


def write_origin(folder: Path, pool_images: int, facts: Mapping[str, Any]) -> None:
    """Note beside an autoencoder how many images of clients it was trained on, and ``facts``."""
    write_json(folder / _ORIGIN_FILE, {_IMAGES: pool_images, **facts})


def read_pool_images(folder: Path) -> int | None:
    """Return how many clients' images it was trained on, if noted; raises CheckpointError."""
    note = find_autoencoder(folder) / _ORIGIN_FILE
    if not note.is_file():
        return None
    content = read_json(note)
    count = content.get(_IMAGES) if isinstance(content, dict) else None
    if not isinstance(count, int):
        raise CheckpointError(f"{note} does not say {_IMAGES}; train the autoencoder again")
    return count
