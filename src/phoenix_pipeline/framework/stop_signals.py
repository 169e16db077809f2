"""Requests to end: a signal, or the end of the process that started this one."""

import os
import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager

from phoenix_pipeline.child_process import end_with

LIFELINE = "PHOENIX_LIFELINE"
"""The variable with the descriptor of a pipe whose other end the starting process holds."""

_PATIENCE_S = 20.0
_SIGNALS = ("SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; like Ctrl-C, with the signal's own exit status."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def stopped_like_ctrl_c() -> Iterator[None]:
    """Raise :class:`Stopped` in the block on SIGTERM, and on SIGHUP where nohup does not rule it.

    The second signal of a kind ends the process at once. Other threads than the first cannot be
    interrupted: there the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: types.FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    changed = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in changed:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


@contextmanager
def lifeline() -> Iterator[dict[str, str] | None]:
    """Give the variable for a child's environment that makes the child end with this process.

    The child is started with the descriptor passed on, and calls :func:`end_with_parent`. None
    where descriptors cannot be passed on (Windows).
    """
    if os.name != "posix":
        yield None
        return
    read_end, write_end = os.pipe()
    try:
        yield {LIFELINE: str(read_end)}
    finally:
        os.close(read_end)
        os.close(write_end)


def end_with_parent() -> None:
    """Ask this process to end as soon as the one that gave it a lifeline has ended, however."""
    descriptor = os.environ.pop(LIFELINE, "")
    if descriptor.isdigit():
        os.set_inheritable(int(descriptor), False)
        end_with(int(descriptor), _PATIENCE_S)
