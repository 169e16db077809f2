"""Work on tensors at fixed places, recorded once as a CUDA graph and launched as a whole.

A step of a U-Net is a thousand kernels. A GPU is done with them sooner than Python has launched
them, so it waits: 60 ms a step on an H200 where the arithmetic takes 10 (docs/speed.md).
"""

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from phoenix_pipeline.errors import PhoenixError

logger = logging.getLogger(__name__)

Launch = Callable[[], object]
T = TypeVar("T")

# Kernels choose their plans and compiled code is compiled before anything is recorded.
_WARM_UPS = 3
# Two threads that record at once would mix what they allocate.
_RECORDING = threading.Lock()


def record(
    compute: Launch, generators: Sequence[torch.Generator], device: torch.device, name: str
) -> Launch:
    """Return what does the work of ``compute`` again; on a GPU a CUDA graph of it.

    Args:
        compute: works on the same tensors in every call, and reads no value from the device. It is
            called a few times first, and not at all later: what it does in Python happens no more.
        generators: all that it draws random numbers from. Later launches draw on from the state
            that a generator is in then, as ``compute`` would.
        device: elsewhere than on a GPU ``compute`` itself is returned.
        name: of the work, for the warning if it cannot be recorded; ``compute`` is returned then.
    """
    if device.type != "cuda":
        return compute
    try:
        with _RECORDING:
            return _record(compute, generators, device)
    except (PhoenixError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        logger.warning("%s is launched kernel by kernel, which is slower: %s", name, reason)
        return compute


class KeptByNetwork(Generic[T]):
    """What was recorded for a network, for as long as that lives and ``key`` stays the same."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[nn.Module, tuple[object, T]] = WeakKeyDictionary()

    def get(self, network: nn.Module, key: object, make: Callable[[], T]) -> T:
        """Return what is kept of ``network`` under ``key``, or ``make()``, kept from now on."""
        kept = self._kept.get(network)
        if kept and kept[0] == key:
            return kept[1]
        # The old one first: it holds memory.
        self._kept.pop(network, None)
        made = make()
        self._kept[network] = (key, made)
        return made


def _record(compute: Launch, generators: Sequence[torch.Generator], device: torch.device) -> Launch:
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            compute()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    torch.cuda.synchronize(device)
    # Tensors that die while a graph is recorded must not be freed by a collection in the middle.
    gc.collect()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        compute()
    return _Recording(graph, compute)


@dataclass(frozen=True)
class _Recording:
    """``compute`` is kept for what it holds: the graph reads that memory."""

    graph: torch.cuda.CUDAGraph
    compute: Launch

    def __call__(self) -> None:
        self.graph.replay()
