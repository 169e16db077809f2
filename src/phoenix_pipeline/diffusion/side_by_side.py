"""A batch divided among the cores: each core takes its part through all sampling steps."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch

Draw = Callable[[Sequence[int]], np.ndarray]

# With fewer images, starting the operations of a layer costs as much as the layer.
_LEAST_SHARE = 8


@contextmanager
def side_by_side(draw: Draw, device: torch.device) -> Iterator[Draw]:
    """Yield a ``draw`` that gives each of torch's CPU threads a part of the seeds, in order.

    Threads that meet after every operation wait for each other, and for small networks two of them
    are slower than one. On other devices, and where torch may use one thread, ``draw`` is yielded
    as it is.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        yield draw
        return

    def draw_parts(seeds: Sequence[int]) -> np.ndarray:
        shares = min(threads, len(seeds) // _LEAST_SHARE)
        if shares <= 1:
            return draw(seeds)
        bounds = [len(seeds) * share // shares for share in range(shares + 1)]
        return np.concatenate(list(pool.map(draw, [seeds[a:b] for a, b in pairwise(bounds)])))

    try:
        with ThreadPoolExecutor(threads, "sampling", torch.set_num_threads, (1,)) as pool:
            yield draw_parts
    finally:
        # Threads that start later, and MKL, go by the number that was set last.
        torch.set_num_threads(threads)
