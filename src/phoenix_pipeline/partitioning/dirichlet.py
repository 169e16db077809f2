"""Class shares drawn from a Dirichlet distribution, by flwr-datasets' DirichletPartitioner."""

import warnings

import numpy as np

from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.seeding import derive_seed, numpy_generator

_TRIAL_DRAWS = 10
_LARGEST_ALPHA = 1e6


def divide_dirichlet(labels: np.ndarray, config: PartitionConfig, seed: int) -> np.ndarray:
    """Return the client of each image, int64 [N] (Yurochkin et al., arXiv 1905.12022).

    Each class is divided in shares drawn from Dirichlet(``dirichlet_alpha``), without balancing
    the client sizes; the draw is repeated a few times until every client has
    ``min_images_per_client``. Which images of a class a client gets is random: the partitioner cuts
    consecutive blocks, and files are often sorted by writer or time. Raises SettingsError when no
    draw reaches the minimum.
    """
    # Imported here: it takes seconds and the other schemes do not need it.
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner

    partitioner = DirichletPartitioner(
        num_partitions=config.num_clients,
        partition_by="label",
        alpha=config.dirichlet_alpha,
        min_partition_size=config.min_images_per_client,
        self_balancing=False,
        shuffle=False,
        seed=derive_seed(seed, "partition_dirichlet"),
    )
    order = numpy_generator(seed, "partition_dirichlet_order").permutation(len(labels))
    partitioner.dataset = Dataset.from_dict({"label": labels[order], "index": order})
    client_of = np.empty(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        # It warns at every repeated draw; what counts is whether the last one succeeds.
        warnings.simplefilter("ignore")
        try:
            for client in range(config.num_clients):
                client_of[partitioner.load_partition(client)["index"]] = client
        except ValueError as error:
            raise SettingsError(_refusal(labels, config, seed)) from error
    return client_of


def _refusal(labels: np.ndarray, config: PartitionConfig, seed: int) -> str:
    """Say which minimum or alpha trial draws reach."""
    minimum, alpha = config.min_images_per_client, config.dirichlet_alpha
    possible = ["a smaller partition.num_clients"]
    reached = _smallest_client(labels, config.num_clients, alpha, seed)
    if 0 < reached < minimum:
        possible.insert(0, f"partition.min_images_per_client of about {reached}")
    while alpha < _LARGEST_ALPHA:
        alpha *= 2
        if _smallest_client(labels, config.num_clients, alpha, seed) >= minimum:
            possible.insert(0, f"partition.dirichlet_alpha of about {alpha:g}")
            break
    return (
        f"no draw from Dirichlet({config.dirichlet_alpha:g}) over {config.num_clients} clients "
        f"gave every client partition.min_images_per_client = {minimum} images; possible are "
        f"{' or '.join(possible)}"
    )


def _smallest_client(labels: np.ndarray, num_clients: int, alpha: float, seed: int) -> int:
    """Return the size of the smallest client in the best of a few trial draws."""
    generator = numpy_generator(seed, "partition_dirichlet_trial")
    class_sizes = np.unique(labels, return_counts=True)[1]
    smallest = [
        (class_sizes @ generator.dirichlet(np.full(num_clients, alpha), len(class_sizes))).min()
        for _ in range(_TRIAL_DRAWS)
    ]
    return int(max(smallest))
