"""A trained model as one object: samples, rounds, and its folder."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.api.settings import Settings, override
from phoenix_pipeline.arms.arm_model import write_model_card
from phoenix_pipeline.arms.sampling import (
    class_names_of,
    draw_images,
    plan_labels,
    plan_main_samples,
)
from phoenix_pipeline.checkpoints import METADATA_FILE, atomic_path
from phoenix_pipeline.config import SamplingConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.families.model_folder import ROUNDS_FILE, assemble_client, read_description

MODEL_FOLDER = "model"
"""Where the model lies in a folder of ``train``."""


@dataclass(frozen=True, eq=False)
class Model:
    """The model of an arm in ``folder``; ``device``: where it is sampled, as ``run.device``."""

    folder: Path
    device: str = "auto"
    # Removes the folder of a training without one when the last reference to the model goes.
    _temporary: TemporaryDirectory[str] | None = field(default=None, repr=False)

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """The complete groups of settings that it was trained with, by name."""
        return read_description(self.folder)["trained_with"]

    @property
    def clients(self) -> tuple[int, ...]:
        """The clients that have a model of their own; empty where all share one."""
        return tuple(read_description(self.folder)["clients"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of a conditional model, in the order of its labels; empty for any other."""
        return class_names_of(read_description(self.folder))

    @property
    def rounds(self) -> pd.DataFrame:
        """A row per round and client (docs/architecture.md); raises DataError if it is broken."""
        path = self.folder / ROUNDS_FILE
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path} is not a readable table: {reason}") from error

    def sample(
        self,
        num_images: int,
        seed: int | None = None,
        *,
        client_id: int | None = None,
        labels: Sequence[int | str] | None = None,
        sampling: Settings | None = None,
    ) -> np.ndarray:
        """Return uint8 images [N, C, H, W], values 0..255; image ``i`` depends on seed and ``i``.

        Where clients have models of their own, they draw in proportion to what they hold, client by
        client.

        Args:
            num_images: N, at least 1.
            seed: of these images; None: that of the training, which gives those of ``kedro run``.
            client_id: this client's model draws them all.
            labels: the class of each image, by number or name, of a conditional model; None: as
                :meth:`planned_labels` says.
            sampling: what differs from the settings of the training, such as ``{"num_steps": 50}``.

        Raises SettingsError: a setting is unknown or not allowed, or a label outside the classes.
        Raises CheckpointError: ``client_id`` has no model.
        """
        if labels is not None and len(labels) != num_images:
            raise SettingsError(f"{len(labels)} labels came for {num_images} images; give one each")
        config = self._sampling(num_images, sampling)
        own = self.settings["run"]["seed"] if seed is None else seed
        return draw_images(self.folder, num_images, config, own, self.device, client_id, labels)

    def planned_labels(
        self,
        num_images: int,
        *,
        client_id: int | None = None,
        sampling: Settings | None = None,
    ) -> np.ndarray | None:
        """Return the classes int64 [N] that :meth:`sample` draws; None if unconditional."""
        metadata = read_description(self.folder)
        plan = plan_main_samples(metadata, num_images, client_id)
        labels = plan_labels(metadata, plan, self._sampling(num_images, sampling))
        return None if labels is None else np.array(labels, dtype=np.int64)

    def _sampling(self, num_images: int, sampling: Settings | None) -> SamplingConfig:
        over = {**(sampling or {}), "num_images": num_images}
        trained = SamplingConfig.model_validate(self.settings["sampling"])
        config: SamplingConfig = override(trained, "sampling", over)
        return config

    def save(self, folder: Path | str, client_id: int | None = None) -> Path:
        """Write the model, or the complete one of ``client_id``, into a new folder; return it.

        :func:`load` reads it, and ``DDPMPipeline.from_pretrained`` a diffusion model for all.
        Raises SettingsError: the folder exists; CheckpointError: the client has no model.
        """
        target = Path(folder)
        if target.exists():
            raise SettingsError(f"{target} exists and is not overwritten; name a new folder")
        if client_id is not None:
            assemble_client(self.folder, client_id, target)
            write_model_card(target)
            return target
        with atomic_path(target) as temporary:
            shutil.copytree(self.folder, temporary)
        return target


def load(folder: Path | str, device: str = "auto") -> Model:
    """Return the model of a folder, such as ``data/06_models/<arm>``; raises CheckpointError."""
    folder = Path(folder)
    if not (folder / METADATA_FILE).exists() and (folder / MODEL_FOLDER).is_dir():
        folder = folder / MODEL_FOLDER
    read_description(folder)
    return Model(folder, device)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write ``table`` as Parquet without its index; the file is complete or as it was."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)
