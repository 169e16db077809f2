"""The partition schemes by name. A new one is a function, an entry, and its name in the settings.

A scheme gets labels int64 [N] (all 0 where there are none), the settings and the run's seed, and
returns the client of each image, int64 [N].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.images import apportion
from phoenix_pipeline.partitioning.dirichlet import divide_dirichlet
from phoenix_pipeline.partitioning.pathological import divide_pathological
from phoenix_pipeline.registry import Registry
from phoenix_pipeline.seeding import numpy_generator


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
