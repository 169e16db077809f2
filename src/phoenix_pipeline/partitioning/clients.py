"""Divide images among clients: iid, k classes per client, Dirichlet, or unequal amounts."""

import math

import numpy as np
import pandas as pd

from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.images import apportion
from phoenix_pipeline.partitioning.dirichlet import divide_dirichlet
from phoenix_pipeline.partitioning.pathological import divide_pathological
from phoenix_pipeline.seeding import numpy_generator

UNLABELLED = -1


def partition_clients(
    labels: np.ndarray | None, num_images: int, config: PartitionConfig, seed: int
) -> pd.DataFrame:
    """Give every image to exactly one client.

    ``labels``: int64 [num_images] or None. Returns client_id int32, image_index int64 and label
    int64 (-1 unlabelled), sorted by client and then image; the same seed gives the same table.
    Raises SettingsError, saying what would be possible, for what these images cannot give.
    """
    _check_request(labels, num_images, config)
    if config.scheme == "pathological" and labels is not None:
        client_of = divide_pathological(labels, config, seed)
    elif config.scheme == "dirichlet" and labels is not None:
        client_of = divide_dirichlet(labels, config, seed)
    elif config.scheme == "quantity":
        client_of = _divide_by_quantity(num_images, config, seed)
    else:
        client_of = _divide_evenly(num_images, config, seed)
    _check_smallest(client_of, config)
    order = np.lexsort((np.arange(num_images), client_of))
    return pd.DataFrame(
        {
            "client_id": client_of[order].astype(np.int32),
            "image_index": order.astype(np.int64),
            "label": np.full(num_images, UNLABELLED) if labels is None else labels[order],
        }
    ).astype({"label": np.int64})


def _divide_evenly(num_images: int, config: PartitionConfig, seed: int) -> np.ndarray:
    """Deal shuffled images in turn (flwr-datasets' IidPartitioner would not shuffle)."""
    order = numpy_generator(seed, "partition_iid").permutation(num_images)
    client_of = np.empty(num_images, dtype=np.int64)
    client_of[order] = np.arange(num_images) % config.num_clients
    return client_of


def _divide_by_quantity(num_images: int, config: PartitionConfig, seed: int) -> np.ndarray:
    """Deal shuffled images in Dirichlet-distributed amounts on top of the minimum for everyone."""
    generator = numpy_generator(seed, "partition_quantity")
    shares = generator.dirichlet(np.full(config.num_clients, config.quantity_alpha))
    spare = num_images - config.num_clients * config.min_images_per_client
    sizes = config.min_images_per_client + apportion(shares, spare)
    client_of = np.repeat(np.arange(config.num_clients), sizes)
    return generator.permutation(client_of)


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
    if config.scheme not in ("pathological", "dirichlet"):
        return
    if labels is None:
        raise SettingsError(
            f"partition.scheme {config.scheme!r} needs labels and the images have none; without "
            f"labels partition.scheme iid and quantity are possible"
        )
    if config.scheme == "pathological":
        _check_classes(labels, config)


def _check_classes(labels: np.ndarray, config: PartitionConfig) -> None:
    sizes = np.unique(labels, return_counts=True)[1]
    k, num_classes = config.classes_per_client, len(sizes)
    if k > num_classes:
        raise SettingsError(
            f"partition.classes_per_client is {k} but the images have {num_classes} classes; "
            f"1 to {num_classes} are possible"
        )
    if config.num_clients * k < num_classes:
        raise SettingsError(
            f"{config.num_clients} clients with {k} classes each cover "
            f"{config.num_clients * k} of {num_classes} classes and some images would belong to "
            f"no one; possible are partition.classes_per_client from "
            f"{math.ceil(num_classes / config.num_clients)} or partition.num_clients from "
            f"{math.ceil(num_classes / k)}"
        )
    owners, smallest = math.ceil(config.num_clients * k / num_classes), int(sizes.min())
    if owners > smallest:
        raise SettingsError(
            f"{config.num_clients} clients with {k} classes each need {owners} images of every "
            f"class, but the smallest class has {smallest}; possible is partition.num_clients x "
            f"partition.classes_per_client up to {smallest * num_classes}"
        )


def _check_smallest(client_of: np.ndarray, config: PartitionConfig) -> None:
    sizes = np.bincount(client_of, minlength=config.num_clients)
    if sizes.min() < config.min_images_per_client:
        raise SettingsError(
            f"client {sizes.argmin()} would get {sizes.min()} images, fewer than "
            f"partition.min_images_per_client = {config.min_images_per_client}; possible is up to "
            f"{sizes.min()}"
        )
