"""The Kedro runner of this project: arms train side by side, all other nodes run in turn.

Arms do not depend on each other, and one arm does not fill several cores: all wait at the end of a
round, and the threads of one interpreter wait for each other. So each arm at work has a process of
its own (``child_process.py``), with its share of the machine. Other nodes have what arms leave.
"""

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from itertools import chain
from queue import SimpleQueue
from typing import Any

import torch
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import SequentialRunner
from kedro.runner.task import Task
from pluggy import PluginManager
from threadpoolctl import threadpool_limits

from phoenix_pipeline.arms.references import train_label_judge
from phoenix_pipeline.child_process import ChildProcess, lent_process
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.framework.arm_blocks import arm_registry
from phoenix_pipeline.hardware import available_cores, available_memory, resolve_device
from phoenix_pipeline.pipelines.arm import arm_of
from phoenix_pipeline.pipelines.federated_training.nodes import train

logger = logging.getLogger(__name__)

_MEMORY_OF_AN_ARM = 2 << 30
# Of a thread that is to have what others leave.
_NICENESS = 3
# Takes seconds, which a process has while the others' nodes run.
_IMPORTED_FIRST = ("phoenix_pipeline.arms.time_estimate", "diffusers.models.unets.unet_2d")

Run = Callable[[Node], None]
Start = Callable[[Node], Future[None]]


class ArmsRunner(SequentialRunner):
    """Runs nodes in turn, and trains as many arms at a time as ``run.arms_at_a_time`` says."""

    @property
    def _logger(self) -> logging.Logger:
        """Kedro's own logger: what it says of each node is the same for every runner."""
        return logging.getLogger(SequentialRunner.__module__)

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol[Any, Any],
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        count = _arms_at_a_time([n for n in pipeline.nodes if n.func is train], catalog)
        if count == 1:
            super()._run(pipeline, catalog, hook_manager, run_id)
            return
        logger.info("%d arms train side by side, each in a process of its own", count)
        uses = Counter(chain.from_iterable(node.inputs for node in pipeline.nodes))

        def run(node: Node) -> None:
            Task(node, catalog, self._is_async, hook_manager, run_id).execute()

        with _processes(count, run) as start, _background(run) as beside:
            for node in _run_nodes(pipeline, run, start, beside, count):
                self._release_datasets(node, catalog, uses, pipeline)


def _arms_at_a_time(trainings: Sequence[Node], catalog: CatalogProtocol[Any, Any]) -> int:
    """Return how many of ``trainings`` go side by side."""
    if len(trainings) < 2:
        return 1
    run: RunConfig = catalog.load("params:run")
    if run.arms_at_a_time != "auto":
        return min(run.arms_at_a_time, len(trainings))
    arms: list[ArmSettings] = [catalog.load(f"params:{arm_of(node)}") for node in trainings]
    device = resolve_device(run.device)
    if device.type != "cpu" or any(arm.federation.engine != "in_process" for arm in arms):
        return 1
    fit = available_memory(device) // _MEMORY_OF_AN_ARM
    return max(1, min(len(trainings), available_cores(), fit))


@contextmanager
def _processes(count: int, run: Run) -> Iterator[Start]:
    """Yield what starts a node in a thread to which one of ``count`` processes is lent."""
    children = [ChildProcess(count, _IMPORTED_FIRST) for _ in range(count)]
    free = SimpleQueue[ChildProcess]()
    for child in children:
        free.put(child)

    def run_with_a_child(node: Node) -> None:
        child = free.get()
        lent_process.set(child)
        try:
            run(node)
        finally:
            lent_process.set(None)
            free.put(child)

    pool = ThreadPoolExecutor(count, "arm")
    try:
        yield lambda node: pool.submit(run_with_a_child, node)
    finally:
        for child in children:
            child.end()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _background(run: Run) -> Iterator[Run]:
    """Yield what runs a node in a thread that gives way to the processes of arms.

    It computes by itself: threads that wait for each other after every operation take several times
    as long where others have the cores.
    """
    threads = torch.get_num_threads()

    def run_beside(node: Node) -> None:
        with threadpool_limits(1, "blas"):
            pool.submit(run, node).result()

    try:
        with ThreadPoolExecutor(1, "beside", _give_way) as pool:
            yield run_beside
    finally:
        # Threads that start later, and MKL, go by the number that was set last.
        torch.set_num_threads(threads)


def _give_way() -> None:
    """Let this thread take one core, and where a thread has a priority of its own, a low one."""
    torch.set_num_threads(1)
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = max(_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _run_nodes(
    pipeline: Pipeline, run: Run, start: Start, beside: Run, count: int
) -> Iterator[Node]:
    """Run all nodes, ``count`` trainings at a time; yield each when it is done.

    What trainings need comes first, and none begins before all can: all arms have then passed their
    checks. So does what fills the machine by itself. Trainings go in the order of the blocks in
    ``conf``, and the other nodes ``beside`` them.
    """
    sorter = TopologicalSorter(pipeline.node_dependencies)
    sorter.prepare()
    trainings = [node.name for node in pipeline.nodes if node.func is train]
    alone = [node.name for node in pipeline.nodes if node.func is train_label_judge]
    first = {node for node in pipeline.to_nodes(*trainings, *alone).nodes if node.func is not train}
    places = {node: (node not in first, i) for i, node in enumerate(pipeline.nodes)}
    arms = list(arm_registry.names or ())
    waiting: list[tuple[int, Node]] = []
    others: list[tuple[tuple[bool, int], Node]] = []
    running: dict[Future[None], Node] = {}
    while sorter.is_active():
        for node in sorter.get_ready():
            if node.func is train:
                heappush(waiting, (arms.index(arm_of(node)), node))
            else:
                heappush(others, (places[node], node))
        while not first and waiting and len(running) < count:
            node = heappop(waiting)[1]
            running[start(node)] = node
        done = [heappop(others)[1]] if others else []
        for node in done:
            (beside if running else run)(node)
        first.difference_update(done)
        ended = wait(running, 0 if done else None, FIRST_COMPLETED).done
        for future in ended:
            future.result()
            done.append(running.pop(future))
        for node in done:
            sorter.done(node)
            yield node
