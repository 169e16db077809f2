"""What one client owns: its images, and the state that it keeps between rounds."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from flwr.app import Context
from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.images import ImageSet

CLIENT_ID = "client-id"


@dataclass(frozen=True)
class Site:
    """One client: ``images`` are uint8 [N, C, H, W] on the training device."""

    client_id: int
    images: Tensor
    state_folder: Path

    def load_state(self, before_round: int) -> dict[str, Tensor]:
        """Return the tensors kept in the newest round before ``before_round``; empty if none."""
        rounds = [number for number in self._saved_rounds() if number < before_round]
        return load_tensors(self._state_path(max(rounds)))[0] if rounds else {}

    def save_state(
        self, server_round: int, checkpointed_round: int, state: dict[str, Tensor]
    ) -> None:
        """Keep ``state`` of ``server_round``; drop what no resumed run can ask for.

        A run resumes after ``checkpointed_round``, so the newest state up to it is kept as well.
        """
        save_tensors(self._state_path(server_round), state, {"round": server_round})
        needed = max((r for r in self._saved_rounds() if r <= checkpointed_round), default=0)
        for number in self._saved_rounds():
            if number < needed:
                self._state_path(number).unlink(missing_ok=True)

    def _saved_rounds(self) -> list[int]:
        return [int(path.stem.removeprefix("round-")) for path in self._folder.glob("round-*")]

    def _state_path(self, server_round: int) -> Path:
        return self._folder / f"round-{server_round}.safetensors"

    @property
    def _folder(self) -> Path:
        return self.state_folder / str(self.client_id)


class InMemorySites:
    """All sites of a simulation in this process: one resident copy of the images."""

    def __init__(
        self,
        images: ImageSet,
        client_images: pd.DataFrame,
        device: torch.device,
        state_folder: Path,
    ) -> None:
        self._images = torch.from_numpy(images.images).to(device)
        self._indices = {
            int(str(client)): torch.from_numpy(rows["image_index"].to_numpy().copy()).to(device)
            for client, rows in client_images.groupby("client_id")
        }
        self._state_folder = state_folder

    def sizes(self) -> dict[int, int]:
        """Return each client's number of images."""
        return {client: len(indices) for client, indices in self._indices.items()}

    def __call__(self, context: Context) -> Site:
        """Return the site of the node that ``context`` belongs to."""
        client = int(context.node_config[CLIENT_ID])
        return Site(client, self._images[self._indices[client]], self._state_folder)
