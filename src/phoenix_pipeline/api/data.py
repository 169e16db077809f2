"""Images and who holds them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.api.settings import shared_group
from phoenix_pipeline.arms.splits import read_splits
from phoenix_pipeline.config import ImagesConfig, PartitionConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import ImageSet, find_image_source, find_splits
from phoenix_pipeline.partitioning import partition_clients
from phoenix_pipeline.partitioning.clients import UNLABELLED

# Where a table of :func:`partition` keeps its settings; pandas leaves it out of files.
_PARTITION = "phoenix_partition"


@dataclass(frozen=True, eq=False)
class Images:
    """The training images, which clients hold, and the test images, which nobody trains on."""

    train: ImageSet
    test: ImageSet
    config: ImagesConfig = field(default_factory=ImagesConfig)


def read_images(source: Path | str, test: Path | str | None = None, **settings: Any) -> Images:
    """Read a Parquet file, a folder of Parquet files, or a folder of images by class.

    Args:
        source: of the training images; of both splits where their names say so (``train*`` and
            ``test*``).
        test: of the test images. Without them a part is held out.
        settings: of the group ``images`` in docs/parameters.md, such as ``image_size=32``.

    Raises:
        DataError: images cannot be read as the settings say, or the splits do not fit.
        SettingsError: a setting is unknown or not allowed.
    """
    config: ImagesConfig = shared_group("images", settings)
    if test is None:
        sources = find_splits(source)
    else:
        sources = find_image_source(source), find_image_source(test)
    train, held_out = read_splits(*sources, config)
    return Images(train, held_out, config)


def partition(images: Images, *, seed: int = 0, **settings: Any) -> pd.DataFrame:
    """Give every training image to exactly one client.

    Returns client_id int32, image_index int64, label int64 (-1 unlabelled), sorted by client and
    then image. A table of your own with the first two columns does as well, everywhere.

    Args:
        images: of which ``images.train`` is divided.
        seed: the same seed gives the same table.
        settings: of the group ``partition`` in docs/parameters.md: ``scheme``, ``num_clients``, ...

    Raises:
        SettingsError: a setting is unknown, or these images cannot be divided so.
    """
    config: PartitionConfig = shared_group("partition", settings)
    table = partition_clients(images.train.labels, images.train.num_images, config, seed)
    table.attrs[_PARTITION] = config.model_dump(mode="json")
    return table


def partition_settings(clients: pd.DataFrame) -> dict[str, PartitionConfig]:
    """Return the settings that :func:`partition` made a table with; empty for a user's own."""
    if _PARTITION not in clients.attrs:
        return {}
    return {"partition": PartitionConfig.model_validate(clients.attrs[_PARTITION])}


def complete_partition(clients: pd.DataFrame, train: ImageSet) -> pd.DataFrame:
    """Return ``clients`` with labels and in order, as :func:`partition` makes it.

    Raises:
        DataError: a column is missing, or an image does not exist or has two owners.
    """
    missing = [name for name in ("client_id", "image_index") if name not in clients]
    if missing:
        raise DataError(
            f"clients has no column {missing[0]}; needed are client_id and image_index, a row for "
            "each image of each client"
        )
    table = clients[["client_id", "image_index"]].astype(
        {"client_id": np.int32, "image_index": np.int64}
    )
    index = table["image_index"].to_numpy()
    if not len(table) or index.min() < 0 or index.max() >= train.num_images:
        got = f"{index.min()} to {index.max()}" if len(table) else "no rows"
        raise DataError(
            f"clients.image_index has {got}; allowed are the training images, 0 to "
            f"{train.num_images - 1}"
        )
    if table["image_index"].duplicated().any():
        twice = int(index[table["image_index"].duplicated()][0])
        raise DataError(
            f"clients gives image {twice} away twice; an image has one owner, and shared_pool is "
            "how clients come to share images"
        )
    labels = np.full(len(table), UNLABELLED) if train.labels is None else train.labels[index]
    table = table.assign(label=labels.astype(np.int64))
    return table.sort_values(["client_id", "image_index"], ignore_index=True)
