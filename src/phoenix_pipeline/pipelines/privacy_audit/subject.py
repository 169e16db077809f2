"""What is audited: one arm's models, and the images that they were and were not trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from phoenix_pipeline.config import FederationConfig, ModelConfig, PrivacyAuditConfig, RunConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.provenance import ModelDescription, check_data
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet

if TYPE_CHECKING:
    from phoenix_pipeline.federated.records import ClientSettings


@dataclass(frozen=True)
class Subject:
    """One arm: folder, metadata, ``rows`` of ``train`` by client; ``test``: the held-out images."""

    folder: Path
    metadata: ModelDescription
    rows: Mapping[int, np.ndarray]
    train: ImageSet
    test: ImageSet
    config: PrivacyAuditConfig
    device: torch.device

    @classmethod
    def open(
        cls,
        folder: Path,
        trained_images: pd.DataFrame,
        train: ImageSet,
        test: ImageSet,
        config: PrivacyAuditConfig,
        run: RunConfig,
    ) -> "Subject":
        """Return the arm in ``folder``, whose clients trained on ``trained_images``.

        Raises SettingsError: the clients' images are not here.
        Raises DataError: the images are not those of the training.
        """
        from phoenix_pipeline.families.model_folder import read_description

        metadata = read_description(folder)
        if metadata["trained_with"]["federation"]["engine"] == "deployment":
            raise SettingsError(
                "privacy_audit attacks the images that clients trained on, but federation.engine "
                "is deployment, where they lie at the nodes; audit a simulation of it with "
                "federation.engine in_process or ray"
            )
        check_data(metadata["data"], train, test, trained_images)
        by_client = trained_images.groupby("client_id")["image_index"]
        rows = {int(str(client)): rows.to_numpy() for client, rows in by_client}
        return cls(folder, metadata, rows, train, test, config, resolve_device(run.device))

    @cached_property
    def model(self) -> ModelConfig:
        """The settings of the model."""
        return ModelConfig.model_validate(self.metadata["settings"]["model"])

    @cached_property
    def federation(self) -> FederationConfig:
        """The settings of the federation that trained it."""
        return FederationConfig.model_validate(self.metadata["trained_with"]["federation"])

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return self.metadata["settings"]["seed"]

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
