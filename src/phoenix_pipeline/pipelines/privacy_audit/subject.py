"""What is audited: one arm's models, and the images that they were and were not trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from phoenix_pipeline.config import ModelConfig, PrivacyAuditConfig
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet

if TYPE_CHECKING:
    from phoenix_pipeline.federated.records import ClientSettings


@dataclass(frozen=True)
class Subject:
    """One arm: its model folder and metadata, ``rows`` of ``train`` by client, and settings.

    ``test`` holds the images that nobody trained on.
    """

    folder: Path
    metadata: ModelDescription
    rows: Mapping[int, np.ndarray]
    train: ImageSet
    test: ImageSet
    model: ModelConfig
    config: PrivacyAuditConfig
    seed: int
    device: torch.device

    def models(self) -> dict[int, dict[int, np.ndarray]]:
        """Return, for each model's owner (-1: global), the clients whose images it learnt."""
        owned = {client: {client: self.rows[client]} for client in self.metadata["clients"]}
        return owned | (
            {GLOBAL_MODEL: dict(self.rows)} if self.metadata["has_global_model"] else {}
        )

    def network(self, owner: int) -> nn.Module:
        """Return the network of ``owner``, on the device."""
        from phoenix_pipeline.families.model_folder import load_network

        return load_network(self.folder, owner).to(self.device)

    def network_as_trained(self, owner: int) -> nn.Module:
        """Return the network of ``owner`` in the form whose changes are sent, on the device."""
        from phoenix_pipeline.families.model_folder import load_as_trained

        return load_as_trained(self.folder, owner).to(self.device)

    @property
    def client_settings(self) -> "ClientSettings":
        """Return what the clients were told when the models were trained."""
        from phoenix_pipeline.federated.records import ClientSettings

        return ClientSettings.model_validate(self.metadata["settings"])

    @property
    def sizes(self) -> dict[int, int]:
        """Return each client's number of images."""
        return {client: len(rows) for client, rows in self.rows.items()}

    def cannot_be_attacked(self, owner: int) -> str:
        """Return why the model of ``owner`` tells nothing of its training images, or ``""``."""
        personal = self.metadata["settings"]["personal_layers"]
        return family_of(self.model).why_not_attacked(personal if owner == GLOBAL_MODEL else ())
