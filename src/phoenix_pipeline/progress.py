"""Progress bars for waits over two seconds; on something that is not a terminal, nothing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield ``advance(count)``, which moves a bar of ``total`` steps called ``label``.

    Bars of several threads stand below each other: a terminal has one live display.
    """
    progress = _display.enter()
    task = progress.add_task(label, total=total)
    try:
        yield partial(progress.advance, task)
    finally:
        progress.remove_task(task)
        _display.leave()


class _Display:
    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._bars = 0
        self._progress: Progress | None = None

    def enter(self) -> Progress:
        with self._changing:
            self._bars += 1
            if self._progress is None:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
                self._progress = Progress(*columns, TimeRemainingColumn(), transient=True)
                self._progress.disable = not self._progress.console.is_terminal
                self._progress.start()
            return self._progress

    def leave(self) -> None:
        with self._changing:
            self._bars -= 1
            if self._progress and not self._bars:
                self._progress.stop()
                self._progress = None


_display = _Display()
