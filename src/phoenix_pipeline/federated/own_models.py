"""Models on folders of each site's own: the base of adapters, an autoencoder of latents."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.families.latents import autoencoder_folder
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.hub import start_folder
from phoenix_pipeline.latents.autoencoder import Autoencoder, load_autoencoder

_LATENTS = "latents"


@dataclass(frozen=True)
class OwnModels:
    """Folders: ``base`` of what adapters are trained on, ``autoencoder`` of what writes latents."""

    base: Path | None = None
    autoencoder: Path | None = None

    @classmethod
    def of(cls, model: ModelConfig) -> "OwnModels":
        """Return the folders on this machine that ``model`` names, as far as it needs them."""
        start = start_folder(model) if model.lora.rank else None
        return cls(start.resolve() if start else None, autoencoder_folder(model))


NO_MODELS = OwnModels()


@dataclass(frozen=True, eq=False)
class SiteLatents:
    """``mirrored``: the latents of mirrored images are learnt as well."""

    autoencoder: Autoencoder
    mirrored: bool

    @classmethod
    def of(cls, settings: ClientSettings, own: OwnModels) -> "SiteLatents | None":
        """Return the site's, None for pixels; raises SiteRefusal if it is not the run's."""
        asked, folder = settings.latents, own.autoencoder
        if asked is None:
            return None
        if folder is None:
            raise SiteRefusal(
                "no-autoencoder", "set autoencoder in the node configuration to its folder"
            )
        try:
            autoencoder = load_autoencoder(folder)
        except CheckpointError as error:
            raise SiteRefusal("other-autoencoder", str(error)) from error
        if autoencoder.space != asked:
            raise SiteRefusal(
                "other-autoencoder",
                f"{folder} has the digest {autoencoder.space.digest}, but the run is on "
                f"{asked.digest}; use the same folder at every site",
            )
        return cls(autoencoder, settings.training.horizontal_flip)

    def encode(self, images: np.ndarray, device: torch.device) -> Tensor:
        """Return latents [N, c, h, w] of uint8 ``images``; ``mirrored``: [N, 2, c, h, w]."""
        pixels = torch.from_numpy(images).to(device)
        plain = self.autoencoder.encode(pixels)
        if not self.mirrored:
            return plain
        return torch.stack([plain, self.autoencoder.encode(pixels.flip(-1))], dim=1)

    def encode_once(self, images: np.ndarray, device: torch.device, folder: Path) -> Tensor:
        """Return :meth:`encode`, kept in ``folder`` for the last images; raises StorageError."""
        described = f"{images.shape} {self.autoencoder.space.digest} {self.mirrored}".encode()
        key = sha256(described + np.ascontiguousarray(images).tobytes()).hexdigest()[:16]
        kept = folder / f"{_LATENTS}-{key}.safetensors"
        if kept.is_file():
            try:
                return load_tensors(kept)[0][_LATENTS].to(device)
            except CheckpointError:
                kept.unlink()
        latents = self.encode(images, device)
        save_tensors(kept, {_LATENTS: latents}, {})
        for other in set(folder.glob(f"{_LATENTS}-*.safetensors")) - {kept}:
            other.unlink(missing_ok=True)
        return latents


def as_trained(
    images: np.ndarray, settings: ClientSettings, own: OwnModels, device: torch.device
) -> Tensor:
    """Return what a network is trained on: uint8 ``images`` [N, C, H, W], or their latents."""
    latents = SiteLatents.of(settings, own)
    return latents.encode(images, device) if latents else torch.from_numpy(images).to(device)
