"""Who trains in a round, and how many steps each."""

import math
import secrets
import statistics
from collections.abc import Mapping

from phoenix_pipeline.config import LocalWorkConfig
from phoenix_pipeline.images import apportion
from phoenix_pipeline.seeding import numpy_generator


def round_size(num_clients: int, fraction: float) -> int:
    """Return how many of ``num_clients`` train in a round."""
    return max(1, math.ceil(fraction * num_clients - 1e-9))


def select_clients(
    sizes: Mapping[int, int], fraction: float, seed: int, server_round: int
) -> list[int]:
    """Return the sorted ids of this round's clients: ``ceil(fraction x clients)``, in turns.

    All clients take a turn, in an order drawn anew each time, before any takes the next: then few
    rounds see all data, and nobody misses many (Malinovsky et al., arXiv 2302.03662). Places that
    are left in the last round of a turn go to the first of it.
    """
    clients = sorted(sizes)
    count = round_size(len(clients), fraction)
    if count == len(clients):
        return clients
    turn, place = divmod(server_round - 1, math.ceil(len(clients) / count))
    order = numpy_generator(seed, "client_selection", turn).permutation(clients)
    return sorted(int(order[(place * count + i) % len(clients)]) for i in range(count))


def poisson_clients(
    sizes: Mapping[int, int], fraction: float, seed: int | None, server_round: int
) -> list[int]:
    """Return the sorted ids of clients that are each chosen with probability ``fraction``.

    Nobody's choice depends on another's, as accountants of the sampled Gaussian mechanism assume.
    ``seed``: None for a secret choice.
    """
    if fraction >= 1.0:
        return sorted(sizes)

    def draw(client: int) -> float:
        if seed is None:
            return secrets.SystemRandom().random()
        return float(numpy_generator(seed, "poisson_selection", server_round, client).random())

    return [client for client in sorted(sizes) if draw(client) < fraction]


def cap_counts(claimed: Mapping[int, int], ratio: float) -> dict[int, int]:
    """Return numbers of images, in the order of clients: at most ``ratio`` times their median.

    The median is the lower one of an even number: of two sites, neither can raise it.
    """
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
