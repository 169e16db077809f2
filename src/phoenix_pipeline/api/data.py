"""Images and who holds them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_integer_dtype

from phoenix_pipeline.api.settings import shared_group
from phoenix_pipeline.arms.splits import read_splits
from phoenix_pipeline.config import ImagesConfig, PartitionConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import ImageSet, find_image_source, find_splits
from phoenix_pipeline.partitioning import partition_clients
from phoenix_pipeline.partitioning.clients import UNLABELLED

# Where a table of :func:`partition` keeps its settings; pandas leaves it out of files.
_PARTITION = "phoenix_partition"
_LARGEST_ID = np.iinfo(np.int32).max


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

    Raises DataError: images cannot be read as the settings say, or the splits do not fit.
    Raises SettingsError: a setting is unknown or not allowed.
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

    Raises SettingsError: a setting is unknown, or these images cannot be divided so.
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
    """Return ``clients`` with labels, in order; raises DataError for what is no partition."""
    _check_table(clients, train.num_images)
    types = {"client_id": np.int32, "image_index": np.int64}
    table = clients[list(types)].astype(types)
    index = table["image_index"].to_numpy()
    labels = np.full(len(table), UNLABELLED) if train.labels is None else train.labels[index]
    table = table.assign(label=labels.astype(np.int64))
    return table.sort_values(["client_id", "image_index"], ignore_index=True)


def _check_table(clients: pd.DataFrame, num_images: int) -> None:
    for name, allowed in (("client_id", "from 0"), ("image_index", f"0 to {num_images - 1}")):
        if name not in clients or not len(clients):
            raise DataError(
                f"clients has no {f'column {name}' if len(clients) else 'rows'}; needed are "
                "client_id and image_index, a row for each image of each client"
            )
        values, last = clients[name], num_images - 1 if name == "image_index" else _LARGEST_ID
        if not is_integer_dtype(values) or values.min() < 0 or values.max() > last:
            raise DataError(
                f"clients.{name} has {values.min()} to {values.max()} ({values.dtype}); allowed "
                f"are whole numbers {allowed}"
            )
    twice = clients["image_index"][clients["image_index"].duplicated()]
    if len(twice):
        raise DataError(
            f"clients gives image {twice.iloc[0]} away twice; an image has one owner, and "
            "shared_pool is how clients come to share images"
        )
