"""A process of this program's own, for calls that would wait for this interpreter's one lock.

What is called gives its results, its events and its log to this process. Both ends are this
program: nothing that comes from elsewhere is unpickled.
"""

import importlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from typing import Any

from threadpoolctl import threadpool_limits

from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.hardware import available_cores, share_machine

_PACKAGE = __package__


class ChildProcess:
    """Calls functions one after another in a process that ends with this one, however."""

    def __init__(self, sharing: int, modules: Sequence[str] = ()) -> None:
        """Start it, to be one of ``sharing`` processes at work on this machine.

        It imports ``modules`` before it is first called.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        level = logging.getLogger(_PACKAGE).getEffectiveLevel()
        self._process = context.Process(
            target=_serve, args=(other_end, sharing, level, tuple(modules)), daemon=True
        )
        self._process.start()
        other_end.close()

    def call(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        tell: tuple[Callable[..., object], ...] = (),
        log_as: str = "",
    ) -> Any:
        """Return ``function(*arguments, *tellers)`` as computed there.

        Args:
            function: found by its name in its module; all of it goes there by pickle.
            arguments: what it is given first.
            tell: called here, in this thread, with what the function gives its tellers.
            log_as: what stands before each line of its log.

        Raises TrainingError: the process was ended from outside.
        Raises Exception: what the function raised.
        """
        name = log_as or function.__name__
        with self._said_if_it_ends(name):
            self._pipe.send_bytes(pickle.dumps((function, arguments, len(tell))))
        while True:
            with self._said_if_it_ends(name):
                received = self._pipe.recv_bytes()
            kind, content = pickle.loads(received)  # noqa: S301 - from our own other end
            if kind == "returned":
                return content
            if kind == "raised":
                raise content
            if kind == "logged":
                _log(content, log_as)
            else:
                index, values = content
                tell[index](*values)

    @contextmanager
    def _said_if_it_ends(self, name: str) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join()
            raise TrainingError(
                f"{name}: its process was ended from outside ({_how(self._process.exitcode)}); the "
                "same command goes on from its last checkpoint"
            ) from error

    def end(self) -> None:
        """End the process now; a call that waits for it raises."""
        self._process.terminate()
        self._process.join()


lent_process: ContextVar[ChildProcess | None] = ContextVar("lent_process", default=None)
"""Where long work of the task that is running may go; None: it stays here."""


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"{name}: is the memory full?" if name == "SIGKILL" else name
    return f"status {status}"


def _log(record: logging.LogRecord, log_as: str) -> None:
    if log_as:
        record.msg = f"{log_as}: {record.msg}"
    there = logging.getLogger(record.name)
    if there.isEnabledFor(record.levelno):
        there.handle(record)


def _serve(pipe: Connection, sharing: int, level: int, modules: Sequence[str]) -> None:
    """Answer calls until the other process is gone."""
    # Ctrl-C goes to both; the other process decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():
        end_with(parent.sentinel)
    share_machine(sharing)
    sender = _Sender(pipe)
    root = logging.getLogger()
    root.handlers = [_Forwarder(sender)]  # type: ignore[arg-type]
    logging.getLogger(_PACKAGE).setLevel(level)
    logging.captureWarnings(True)
    for module in modules:
        importlib.import_module(module)
    threadpool_limits(available_cores(), "blas")
    with suppress(EOFError, OSError):
        while True:
            sender.answer(pipe.recv_bytes())


class _Sender:
    """Sends what any thread says, one thing at a time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def __call__(self, kind: str, content: object) -> None:
        data = pickle.dumps((kind, content))
        with self._lock:
            self._pipe.send_bytes(data)

    def answer(self, call: bytes) -> None:
        """Make the ``call``, and send what is returned or raised."""

        def teller(index: int) -> Callable[..., None]:
            return lambda *values: self("told", (index, values))

        try:
            function, arguments, tellers = pickle.loads(call)  # noqa: S301 - from our other end
            self("returned", function(*arguments, *map(teller, range(tellers))))
        except Exception as error:
            self("raised", _portable(error))


def _portable(error: Exception) -> Exception:
    """Return ``error``, or if need be one like it, with its traceback as a note."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just made
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    error.add_note("".join(traceback.format_tb(error.__traceback__)))
    return error


class _Forwarder(QueueHandler):
    """Sends records as text, with nothing in them that the other process could not read."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send ``record``, prepared."""
        self.queue("logged", record)  # type: ignore[operator]


def end_with(lifeline: int, patience_s: float = 0.0) -> None:
    """End this process as soon as the other end of the pipe ``lifeline`` is closed, however.

    With ``patience_s`` it is asked first, by SIGTERM, and has that long.
    """

    def watch() -> None:
        wait([lifeline])
        if patience_s:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(patience_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
