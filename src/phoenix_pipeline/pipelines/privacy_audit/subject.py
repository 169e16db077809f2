"""What is audited: one arm's models, and the images that they were and were not trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from phoenix_pipeline.config import ModelConfig, PrivacyAuditConfig
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet


@dataclass(frozen=True)
class Subject:
    """One arm: its model folder and metadata, ``rows`` of ``train`` by client, and settings.

    ``test`` holds the images that nobody trained on.
    """

    folder: Path
    metadata: Mapping[str, Any]
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

    def sent(self, network: nn.Module) -> list[nn.Parameter]:
        """Return the trained weights of ``network`` that leave a client in its update."""
        from phoenix_pipeline.federated.personal_layers import is_personal

        personal = tuple(self.metadata["settings"]["personal_layers"])
        return [
            weight
            for name, weight in network.named_parameters()
            if weight.requires_grad and not is_personal(name, personal)
        ]

    def cannot_be_attacked(self, owner: int) -> str:
        """Return why the model of ``owner`` tells nothing of its training images, or ``""``."""
        personal = self.metadata["settings"]["personal_layers"]
        if self.model.family == "dcgan" and owner == GLOBAL_MODEL and "discriminator" in personal:
            return (
                "the attack on a GAN needs its discriminator, which stayed with the clients; the "
                "model has an untrained one"
            )
        return ""
