"""The nodes of a run: a log line each with its place and its time, and how long each arm's took."""

import logging
import threading
import time

from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)


class NodeLogHook:
    """Logs ``[3/14] fedavg.train`` at the start and the seconds at the end of slow nodes."""

    def __init__(self, slow_seconds: float = 2.0) -> None:
        self._slow_seconds = slow_seconds
        self._total, self._number = 0, 0
        self._started: dict[str, float] = {}
        self._unsaved: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Count the nodes."""
        self._total, self._number = len(pipeline.nodes), 0

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Log the start."""
        with self._lock:
            self._number += 1
            self._started[node.name] = time.perf_counter()
            self._unsaved[node.name] = set(node.outputs)
            logger.info("[%d/%d] %s", self._number, self._total, node.name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Log the time of a slow node once its last output is written.

        Samples, for instance, are drawn while they are written.
        """
        with self._lock:
            unsaved = self._unsaved[node.name]
            unsaved.discard(dataset_name)
            seconds = time.perf_counter() - self._started[node.name]
        if not unsaved and seconds > self._slow_seconds:
            logger.info("%s took %.0f s", node.name, seconds)


class NodeTimes:
    """First and last sign of life of every node, in milliseconds since 1970.

    Kedro runs the arms' nodes in turns: all checks first, all scores last. An arm's time is the sum
    of its own nodes' times, not the time from its first node to its last.
    """

    def __init__(self) -> None:
        self._began: dict[str, dict[str, int]] = {}
        self._last: dict[tuple[str, str], int] = {}

    def begin(self, namespace: str, node: str) -> None:
        """Note that ``node`` of ``namespace`` begins."""
        self._began.setdefault(namespace, {})[node] = now_ms()

    def go_on(self, namespace: str, node: str) -> None:
        """Note that the node has run, or has saved an output."""
        self._last[namespace, node] = now_ms()

    def begin_ms(self, namespace: str) -> int | None:
        """Return when the first node began; None when none has."""
        return min(self._began.get(namespace, {}).values(), default=None)

    def end_ms(self, namespace: str) -> int | None:
        """Return when the arm would have ended had it run alone; None when no node has begun.

        A node that has begun and given no other sign, as one that failed, is counted until now.
        """
        began, now = self._began.get(namespace), now_ms()
        if not began:
            return None
        busy = sum(self._last.get((namespace, node), now) - at for node, at in began.items())
        return min(min(began.values()) + busy, now)


def now_ms() -> int:
    """Return the time in milliseconds since 1970, as MLflow takes it."""
    return int(time.time() * 1000)
