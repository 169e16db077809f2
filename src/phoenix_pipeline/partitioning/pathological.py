"""Exactly k classes per client (McMahan et al., arXiv 1602.05629), no image and no class left out.

flwr-datasets' PathologicalPartitioner leaves classes out in its random mode, and in its
deterministic mode when clients are few (3 clients of 4 classes reach 6 of 10 classes).
"""

import math

import numpy as np

from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import apportion
from phoenix_pipeline.seeding import numpy_generator

_BALANCING_STEPS = 200


def divide_pathological(labels: np.ndarray, config: PartitionConfig, seed: int) -> np.ndarray:
    """Return the client of each image, int64 [N].

    The numbers of owners of two classes differ by at most one. A class is divided among its owners
    so that client sizes are as equal as the classes allow, while each owner gets at least half of
    an equal share.
    Raises SettingsError: more classes per client than there are, classes that would be no one's, or
    a class with fewer images than owners; says what would be possible.
    """
    _check_classes(labels, config)
    generator = numpy_generator(seed, "partition_pathological")
    classes, sizes = np.unique(labels, return_counts=True)
    holds = _assign_classes(config, len(classes), generator)
    floors = np.maximum(sizes // (2 * holds.sum(axis=0)), 1)
    shares = _balance(holds, sizes, floors)
    client_of = np.empty(len(labels), dtype=np.int64)
    for position, label in enumerate(classes):
        owners = np.flatnonzero(holds[:, position])
        counts = apportion(
            shares[owners, position],
            int(sizes[position]),
            lower=np.full(len(owners), floors[position]),
        )
        images = generator.permutation(np.flatnonzero(labels == label))
        client_of[images] = np.repeat(owners, counts)
    return client_of


def _assign_classes(
    config: PartitionConfig, num_classes: int, generator: np.random.Generator
) -> np.ndarray:
    """Let each client in turn pick the k least used classes, ties at random: bool [clients, K]."""
    holds = np.zeros((config.num_clients, num_classes), dtype=bool)
    used = np.zeros(num_classes, dtype=np.int64)
    for client in range(config.num_clients):
        order = generator.permutation(num_classes)
        chosen = order[np.argsort(used[order], kind="stable")[: config.classes_per_client]]
        holds[client, chosen] = True
        used[chosen] += 1
    return holds


def _balance(holds: np.ndarray, sizes: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Scale rows to equal client sizes and columns to class sizes in turn (Sinkhorn)."""
    target = sizes.sum() / len(holds)
    shares = holds * (sizes / holds.sum(axis=0))
    for _ in range(_BALANCING_STEPS):
        shares *= target / shares.sum(axis=1, keepdims=True)
        shares = np.where(holds, np.maximum(shares, floors), 0.0)
        shares *= sizes / shares.sum(axis=0)
    return shares


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
