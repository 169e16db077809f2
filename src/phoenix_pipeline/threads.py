"""A batch divided among the cores: each takes its part through the whole network, or all steps."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Compute = Callable[[Sequence[Item]], np.ndarray]

LEAST_SHARE = 8


@contextmanager
def side_by_side(
    compute: Compute[Item], device: torch.device, least_share: int = LEAST_SHARE
) -> Iterator[Compute[Item]]:
    """Yield a ``compute`` that gives each of torch's CPU threads a part of the items, in order.

    ``compute`` maps items (seeds, indices) to an array with one row each. Threads that meet after
    every operation wait for each other, and for small networks two of them are slower than one. On
    other devices, and where torch may use one thread, ``compute`` is yielded as it is. No thread
    gets fewer than ``least_share`` items: with few, starting a layer's operations costs as much as
    the layer, and threads start them by turns.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        yield compute
        return

    def compute_parts(items: Sequence[Item]) -> np.ndarray:
        shares = min(threads, len(items) // least_share)
        if shares <= 1:
            return compute(items)
        bounds = [len(items) * share // shares for share in range(shares + 1)]
        return np.concatenate(list(pool.map(compute, [items[a:b] for a, b in pairwise(bounds)])))

    try:
        with ThreadPoolExecutor(threads, "part", torch.set_num_threads, (1,)) as pool:
            yield compute_parts
    finally:
        # Threads that start later, and MKL, go by the number that was set last.
        torch.set_num_threads(threads)
