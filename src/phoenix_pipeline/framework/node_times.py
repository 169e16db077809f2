"""How long the nodes of each arm took, one after another or side by side."""

import time


class NodeTimes:
    """First and last sign of life of every node, in milliseconds since 1970.

    Kedro runs the arms' nodes in turns: all checks first, all scores last. An arm's time is the sum
    of its own nodes' times, not the time from its first node to its last.
    """

    def __init__(self) -> None:
        """Know no node."""
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
