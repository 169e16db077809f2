"""What one client owns: its images, and where it keeps state; and all clients of a simulation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from flwr.app import Context, Message
from torch import Tensor

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.federated.client_state import ClientState, ClientStates
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.own_models import NO_MODELS, OwnModels, as_trained
from phoenix_pipeline.federated.site_demands import SiteDemands

CLIENT_ID = "client-id"
_IMAGES, _LABELS = "images.npy", "labels.npy"
_CLIENTS = "client_images.parquet"
_AFTER_THE_LAST = 1 << 62


@dataclass(frozen=True)
class Site:
    """One client: ``images`` are what it trains on: uint8 [N, C, H, W], or their latents.

    ``states``: where it keeps state between rounds. ``labels``: int64 [N] beside the images; None
    where there are none, or nobody asks for them. ``releases_personal_layers``: whether it hands
    them to a server that asks; ``demands``: what a message must keep to; ``own``: the trained
    models that it has. All tensors are on the training device.
    """

    client_id: int
    images: Tensor
    states: ClientStates
    releases_personal_layers: bool = True
    demands: SiteDemands | None = None
    labels: Tensor | None = None
    own: OwnModels = NO_MODELS


class Sites:
    """All sites of a simulation: who holds which rows of ``images``, and of ``labels``."""

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | None,
        client_images: pd.DataFrame,
        device: torch.device,
        states: ClientStates,
        own: OwnModels = NO_MODELS,
    ) -> None:
        self._images, self._labels = images, labels
        self._indices = _indices_of(client_images)
        self._device, self._states, self._own = device, states, own

    @classmethod
    def in_memory(cls, job: FederatedJob, device: torch.device, states: ClientStates) -> "Sites":
        """Return the sites of ``job`` in this process: one resident copy of the images."""
        labels = job.images.labels
        own_labels = None if labels is None else torch.from_numpy(labels).to(device)
        images = as_trained(job.images.images, job.settings, job.own, device)
        return cls(images, own_labels, job.client_images, device, states, job.own)

    @classmethod
    def in_folder(
        cls, folder: Path, device: torch.device, states: ClientStates, own: OwnModels = NO_MODELS
    ) -> "Sites":
        """Return the sites of :func:`write_sites`; each process maps the images that it needs."""
        images = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
        path = folder / _LABELS
        labels = np.load(path, allow_pickle=False) if path.exists() else None
        return cls(images, labels, pd.read_parquet(folder / _CLIENTS), device, states, own)

    def sizes(self) -> dict[int, int]:
        """Return each client's number of images."""
        return {client: len(indices) for client, indices in self._indices.items()}

    def state(self, client_id: int) -> ClientState:
        """Return what ``client_id`` kept after the last round."""
        return self._states.load(client_id, _AFTER_THE_LAST)

    def site(self, client_id: int) -> Site:
        """Return the site of ``client_id``."""
        held = self._indices[client_id]
        images = torch.as_tensor(self._images[held]).to(self._device)
        labels = None
        if self._labels is not None:
            labels = torch.as_tensor(self._labels[held]).to(self._device)
        return Site(client_id, images, self._states, labels=labels, own=self._own)

    def __call__(self, message: Message, context: Context) -> Site:
        """Return the site that ``message`` came to."""
        return self.site(int(context.node_config[CLIENT_ID]))


def write_sites(folder: Path, job: FederatedJob) -> None:
    """Write images, or their latents, labels and who holds them, for :meth:`Sites.in_folder`."""
    trained = as_trained(job.images.images, job.settings, job.own, torch.device("cpu"))
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        np.save(temporary / _IMAGES, trained.numpy(), allow_pickle=False)
        if job.images.labels is not None:
            np.save(temporary / _LABELS, job.images.labels, allow_pickle=False)
        job.client_images[["client_id", "image_index"]].to_parquet(temporary / _CLIENTS)


def _indices_of(client_images: pd.DataFrame) -> dict[int, np.ndarray]:
    clients = client_images["client_id"].to_numpy()
    order = np.argsort(clients, kind="stable")
    names, starts = np.unique(clients[order], return_index=True)
    parts = np.split(client_images["image_index"].to_numpy()[order], starts[1:])
    return dict(zip(names.tolist(), parts, strict=True))
