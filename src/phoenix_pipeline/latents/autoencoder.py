"""An ``AutoencoderKL`` of diffusers: images to latents of about unit variance, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.images import to_model_range
from phoenix_pipeline.latents.space import KIND, LatentSpace, find_autoencoder, read_space

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# As `LDMPipeline` calls it: there an exported model has it.
FOLDER = "vqvae"
# Images at a time: at 256 pixels an autoencoder of Stable Diffusion takes about 1 GB for them.
_AT_A_TIME = 16


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
    known = space.model_copy(update={"digest": _digest(network, space.shift)})
    return Autoencoder(network, known)


def load_autoencoder(folder: Path) -> Autoencoder:
    """Return the autoencoder in ``folder``, on the CPU; never downloads, never unpickles.

    Raises:
        CheckpointError: there is none, it is incomplete, or its weights are no safetensors.
    """
    from diffusers import AutoencoderKL
    from safetensors import SafetensorError

    space, own = read_space(folder), find_autoencoder(folder)
    try:
        with torch.random.fork_rng(devices=[]):
            network, report = AutoencoderKL.from_pretrained(
                own,
                local_files_only=True,
                use_safetensors=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{own} holds no complete {KIND}: {reason}") from error
    if missing := report["missing_keys"]:
        raise CheckpointError(
            f"{own} lacks {len(missing)} of the autoencoder's weights, the first is {missing[0]}; "
            "name a complete one"
        )
    return wrap(network.float(), space)


def _scale(network: "AutoencoderKL") -> float:
    config: Any = network.config
    return float(config.scaling_factor)


def _digest(network: "AutoencoderKL", shift: float) -> str:
    """Return 32 hex digits of all that latents and images depend on."""
    digest = sha256(repr((shift, _scale(network))).encode())
    for name, array in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(array.shape)}\n".encode())
        digest.update(array.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
