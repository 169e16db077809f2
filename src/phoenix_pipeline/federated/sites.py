"""What one client owns: its images, and the state that it keeps between rounds."""

import logging
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from flwr.app import Context, Message
from torch import Tensor

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.client_state import ClientState, KeptStates
from phoenix_pipeline.federated.own_models import NO_MODELS, OwnModels, SiteLatents, as_trained
from phoenix_pipeline.federated.site_demands import SiteDemands
from phoenix_pipeline.federated.wire import load_packed, save_packed
from phoenix_pipeline.images import ImageSet

logger = logging.getLogger(__name__)

CLIENT_ID = "client-id"
_IMAGES, _LABELS = "images.npy", "labels.npy"
_CLIENTS = "client_images.parquet"


@dataclass(frozen=True)
class Site:
    """One client: ``images`` are what it trains on: uint8 [N, C, H, W], or their latents.

    ``labels``: int64 [N] beside them; None where there are none, or nobody asks for them.
    ``releases_personal_layers``: whether it hands them to a server that asks; ``demands``: what a
    message must keep to; ``kept``: what the clients of this process keep in memory; ``own``: the
    trained models that it has. All tensors are on the training device.
    """

    client_id: int
    images: Tensor
    state_folder: Path
    releases_personal_layers: bool = True
    demands: SiteDemands | None = None
    labels: Tensor | None = None
    kept: KeptStates | None = None
    own: OwnModels = NO_MODELS

    def load_state(self, before_round: int) -> ClientState:
        """Return what was kept in the newest round before ``before_round``; empty if nothing.

        Where that file is broken, the one before it is used, which is said.
        Raises CheckpointError: all files are broken.
        """
        if self.kept and (state := self.kept.newest(self.client_id, before_round)):
            return state
        rounds = [number for number in self._saved_rounds() if number < before_round]
        for number in sorted(rounds, reverse=True):
            try:
                return ClientState.from_tensors(load_packed(self._state_path(number))[0])
            except CheckpointError as error:
                logger.warning("client %s: %s; trying the state before it", self.client_id, error)
        if rounds:
            raise CheckpointError(
                f"client {self.client_id} has no intact state in {self.state_folder}; remove its "
                "folder there to let it start anew"
            )
        return ClientState()

    def save_state(self, server_round: int, oldest_checkpoint: int, state: ClientState) -> None:
        """Keep ``state``, and the newest up to ``oldest_checkpoint``, which a resumed run needs."""
        if not state:
            return
        kept = self.kept and self.kept.keep(self.client_id, server_round, state)
        if not kept or (self.kept and self.kept.is_of_checkpoint(server_round)):
            self.write_state(server_round, oldest_checkpoint, state)

    def write_state(self, server_round: int, oldest_checkpoint: int, state: ClientState) -> None:
        """Write the ``state`` of ``server_round``; otherwise as :meth:`save_state`."""
        save_packed(self._state_path(server_round), state.to_tensors(), {"round": server_round})
        if self.kept:
            self.kept.is_in_file(self.client_id, server_round)
        needed = max((r for r in self._saved_rounds() if r <= oldest_checkpoint), default=0)
        for number in self._saved_rounds():
            if number < needed:
                self._state_path(number).unlink(missing_ok=True)

    def _saved_rounds(self) -> list[int]:
        folder = self.state_folder / str(self.client_id)
        return [int(path.stem.removeprefix("round-")) for path in folder.glob("round-*")]

    def _state_path(self, server_round: int) -> Path:
        return self.state_folder / str(self.client_id) / f"round-{server_round}.safetensors"


class _Sites:
    """All sites of a simulation: who holds which rows of ``images``, and of ``labels``."""

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | None,
        client_images: pd.DataFrame,
        device: torch.device,
        state_folder: Path,
        own: OwnModels,
        kept: KeptStates | None = None,
    ) -> None:
        self._images, self._labels = images, labels
        self._indices = _indices_of(client_images)
        self._device, self._state_folder = device, state_folder
        self._own, self._kept = own, kept

    def sizes(self) -> dict[int, int]:
        """Return each client's number of images."""
        return {client: len(indices) for client, indices in self._indices.items()}

    def state(self, client_id: int) -> ClientState:
        """Return what ``client_id`` kept after the last round."""
        return self._without_images(client_id).load_state(sys.maxsize)

    def _without_images(self, client_id: int) -> Site:
        return Site(client_id, torch.empty(0), self._state_folder, kept=self._kept)

    def site(self, client_id: int) -> Site:
        """Return the site of ``client_id``."""
        held = self._indices[client_id]
        images = torch.as_tensor(self._images[held]).to(self._device)
        labels = None
        if self._labels is not None:
            labels = torch.as_tensor(self._labels[held]).to(self._device)
        site = self._without_images(client_id)
        return replace(site, images=images, labels=labels, own=self._own)

    def __call__(self, message: Message, context: Context) -> Site:
        return self.site(int(context.node_config[CLIENT_ID]))


class InMemorySites(_Sites):
    """All sites of a simulation in this process: one resident copy of the images."""

    def __init__(
        self,
        images: ImageSet,
        client_images: pd.DataFrame,
        device: torch.device,
        state_folder: Path,
        kept: KeptStates | None = None,
        own: OwnModels = NO_MODELS,
        latents: SiteLatents | None = None,
    ) -> None:
        """Take the images; with ``kept`` what clients keep is in files at checkpoints only."""
        labels = None if images.labels is None else torch.from_numpy(images.labels).to(device)
        trained = as_trained(images.images, latents, device)
        super().__init__(trained, labels, client_images, device, state_folder, own, kept)

    def write_states(self, oldest_checkpoint: int) -> None:
        """Write what no file has of the clients' newest states, before a checkpoint."""
        for client_id, server_round, state in self._kept.unwritten() if self._kept else ():
            site = self._without_images(client_id)
            site.write_state(server_round, oldest_checkpoint, state)


class StoredSites(_Sites):
    """All sites of a simulation in a folder: each process maps the images that it needs."""

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        state_folder: Path,
        own: OwnModels = NO_MODELS,
    ) -> None:
        images = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
        path = folder / _LABELS
        labels = np.load(path, allow_pickle=False) if path.exists() else None
        clients = pd.read_parquet(folder / _CLIENTS)
        super().__init__(images, labels, clients, device, state_folder, own)

    @classmethod
    def write(
        cls,
        folder: Path,
        images: ImageSet,
        client_images: pd.DataFrame,
        state_folder: Path,
        latents: SiteLatents | None = None,
    ) -> "StoredSites":
        """Write images, or their ``latents``, and who holds them; return the sites on the CPU."""
        cpu = torch.device("cpu")
        trained = as_trained(images.images, latents, cpu).numpy()
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            np.save(temporary / _IMAGES, trained, allow_pickle=False)
            if images.labels is not None:
                np.save(temporary / _LABELS, images.labels, allow_pickle=False)
            client_images[["client_id", "image_index"]].to_parquet(temporary / _CLIENTS)
        return cls(folder, cpu, state_folder)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove what :meth:`write` wrote."""
        shutil.rmtree(folder, ignore_errors=True)


def _indices_of(client_images: pd.DataFrame) -> dict[int, np.ndarray]:
    clients = client_images["client_id"].to_numpy()
    order = np.argsort(clients, kind="stable")
    names, starts = np.unique(clients[order], return_index=True)
    parts = np.split(client_images["image_index"].to_numpy()[order], starts[1:])
    return dict(zip(names.tolist(), parts, strict=True))
