"""Who trains in a round, and how many steps each."""

import math
import secrets
import statistics
from collections.abc import Iterable, Mapping

from phoenix_pipeline.config import FederationConfig, LocalWorkConfig
from phoenix_pipeline.images import apportion
from phoenix_pipeline.seeding import numpy_generator


def round_size(num_clients: int, config: FederationConfig) -> int:
    """Return how many of ``num_clients``, at least 1, train in a round."""
    share = math.ceil(config.client_fraction * num_clients - 1e-9)
    return max(1, share, min(num_clients, config.min_clients_per_round))


def select_clients(clients: Iterable[int], count: int, seed: int, server_round: int) -> list[int]:
    """Return the sorted ids of the ``count`` of ``clients`` that train in this round, in turns.

    All clients take a turn, in an order drawn anew each time, before any takes the next: then few
    rounds see all data, and nobody misses many (Malinovsky et al., arXiv 2302.03662). Places that
    are left in the last round of a turn go to the first of it.
    """
    everyone = sorted(clients)
    if count == len(everyone):
        return everyone
    turn, place = divmod(server_round - 1, math.ceil(len(everyone) / count))
    order = numpy_generator(seed, "client_selection", turn).permutation(everyone)
    return sorted(int(order[(place * count + i) % len(everyone)]) for i in range(count))


def poisson_clients(
    sizes: Mapping[int, int], fraction: float, seed: int | None, server_round: int
) -> list[int]:
    """Return the ids of clients each chosen with probability ``fraction``; no seed: in secret."""
    if fraction >= 1.0:
        return sorted(sizes)

    def draw(client: int) -> float:
        if seed is None:
            return secrets.SystemRandom().random()
        return float(numpy_generator(seed, "poisson_selection", server_round, client).random())

    return [client for client in sorted(sizes) if draw(client) < fraction]


def cap_counts(claimed: Mapping[int, int], ratio: float) -> dict[int, int]:
    """Return numbers of images, at most ``ratio`` times their median, the lower one."""
    if not claimed:
        return {}
    most = max(1, math.floor(ratio * statistics.median_low(claimed.values())))
    return {client: min(count, most) for client, count in sorted(claimed.items())}


def plan_steps(sizes: Mapping[int, int], work: LocalWorkConfig, batch_size: int) -> dict[int, int]:
    """Return each client's number of steps, at least one.

    ``images_per_round`` is shared in proportion to what the clients hold, in whole batches, so that
    arms whose clients hold more images train on no more of them.
    """
    if not sizes:
        return {}
    if work.unit == "steps":
        return {client: max(1, round(work.amount)) for client in sizes}
    if work.unit == "epochs":
        return {
            client: max(1, round(work.amount * size / batch_size)) for client, size in sizes.items()
        }
    total = max(len(sizes), round(work.amount / batch_size))
    steps = apportion(list(sizes.values()), total, lower=[1] * len(sizes))
    return dict(zip(sizes, map(int, steps), strict=True))
