"""One log line per node, with its place in the run and the time that it took."""

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
        """Start counting at zero; nodes of more than ``slow_seconds`` have their time told."""
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
