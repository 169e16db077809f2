"""Who holds which image: the schemes, and the table that they make."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.images import apportion
from phoenix_pipeline.partitioning.dirichlet import divide_dirichlet
from phoenix_pipeline.partitioning.pathological import divide_pathological
from phoenix_pipeline.registry import Registry, look_up
from phoenix_pipeline.seeding import numpy_generator

UNLABELLED = -1


class Scheme(NamedTuple):
    """How images are divided, and whether their labels are needed for it."""

    divide: Callable[[np.ndarray, PartitionConfig, int], np.ndarray]
    needs_labels: bool


def divide_evenly(labels: np.ndarray, config: PartitionConfig, seed: int) -> np.ndarray:
    """Deal shuffled images in turn (flwr-datasets' IidPartitioner would not shuffle)."""
    order = numpy_generator(seed, "partition_iid").permutation(len(labels))
    client_of = np.empty(len(labels), dtype=np.int64)
    client_of[order] = np.arange(len(labels)) % config.num_clients
    return client_of


def divide_by_quantity(labels: np.ndarray, config: PartitionConfig, seed: int) -> np.ndarray:
    """Deal shuffled images in Dirichlet-distributed amounts on top of the minimum for everyone."""
    generator = numpy_generator(seed, "partition_quantity")
    shares = generator.dirichlet(np.full(config.num_clients, config.quantity_alpha))
    spare = len(labels) - config.num_clients * config.min_images_per_client
    sizes = config.min_images_per_client + apportion(shares, spare)
    client_of = np.repeat(np.arange(config.num_clients), sizes)
    return generator.permutation(client_of)


SCHEMES = Registry(
    "partition_schemes",
    {
        "iid": Scheme(divide_evenly, needs_labels=False),
        "pathological": Scheme(divide_pathological, needs_labels=True),
        "dirichlet": Scheme(divide_dirichlet, needs_labels=True),
        "quantity": Scheme(divide_by_quantity, needs_labels=False),
    },
)


def partition_clients(
    labels: np.ndarray | None, num_images: int, config: PartitionConfig, seed: int
) -> pd.DataFrame:
    """Give every image to exactly one client.

    ``labels``: int64 [num_images] or None. Returns client_id int32, image_index int64 and label
    int64 (-1 unlabelled), sorted by client and then image; the same seed gives the same table.
    Raises SettingsError, saying what would be possible, for what these images cannot give.
    """
    scheme = look_up(SCHEMES, config.scheme, "partition.scheme")
    _check_request(labels, num_images, config)
    if scheme.needs_labels and labels is None:
        without = [name for name, other in SCHEMES.items() if not other.needs_labels]
        raise SettingsError(
            f"partition.scheme {config.scheme!r} needs labels and the images have none; without "
            f"labels partition.scheme {' and '.join(without)} are possible"
        )
    classes = np.zeros(num_images, dtype=np.int64) if labels is None else labels
    client_of = scheme.divide(classes, config, seed)
    sizes = np.bincount(client_of, minlength=config.num_clients)
    if sizes.min() < config.min_images_per_client:
        raise SettingsError(
            f"client {sizes.argmin()} would get {sizes.min()} images, fewer than "
            f"partition.min_images_per_client = {config.min_images_per_client}; possible is up to "
            f"{sizes.min()}"
        )
    order = np.lexsort((np.arange(num_images), client_of))
    return pd.DataFrame(
        {
            "client_id": client_of[order].astype(np.int32),
            "image_index": order.astype(np.int64),
            "label": np.full(num_images, UNLABELLED) if labels is None else labels[order],
        }
    ).astype({"label": np.int64})


def _check_request(labels: np.ndarray | None, num_images: int, config: PartitionConfig) -> None:
    if labels is not None and len(labels) != num_images:
        raise DataError(f"{len(labels)} labels were given for {num_images} images")
    if config.num_clients > num_images:
        raise SettingsError(
            f"partition.num_clients is {config.num_clients} but there are {num_images} images; "
            f"at most {num_images} clients are possible"
        )
    if config.num_clients * config.min_images_per_client > num_images:
        raise SettingsError(
            f"{config.num_clients} clients with at least {config.min_images_per_client} images "
            f"each need {config.num_clients * config.min_images_per_client}, but there are "
            f"{num_images}; possible are partition.num_clients up to "
            f"{num_images // config.min_images_per_client} or partition.min_images_per_client up "
            f"to {num_images // config.num_clients}"
        )
