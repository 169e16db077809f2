"""Exactly k classes per client (McMahan et al., arXiv 1602.05629), no image and no class left out.

flwr-datasets' PathologicalPartitioner leaves classes out in its random mode, and in its
deterministic mode when clients are few (3 clients of 4 classes reach 6 of 10 classes).
"""

import numpy as np

from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.images import apportion
from phoenix_pipeline.seeding import numpy_generator

_BALANCING_STEPS = 200


def divide_pathological(labels: np.ndarray, config: PartitionConfig, seed: int) -> np.ndarray:
    """Return the client of each image, int64 [N].

    The numbers of owners of two classes differ by at most one. A class is divided among its owners
    so that client sizes are as equal as the classes allow, while each owner gets at least half of
    an equal share. Needs num_clients x classes_per_client >= number of classes, and no class with
    fewer images than owners.
    """
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
