"""Locks on files, released by the system when the process that holds them ends, however it ends.

They are ``flock``: where a system (Windows) or a file system has none, nothing is locked.
"""

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from phoenix_pipeline.errors import BusyError, StorageError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

CAN_LOCK = fcntl is not None
_SHOWN_COMMAND = 200
_open_descriptors: set[int] = set()


class Locks:
    """The locks that one run holds; each file tells who that is.

    Args:
        command: what the holder is called; None: the name of the program alone, since arguments
            may hold secrets.
        remedy: what who finds a lock taken may do other than wait.
    """

    def __init__(
        self, command: str | None = None, remedy: str = "or name another folder for this one"
    ) -> None:
        self._descriptors: list[int] = []
        self._command = (Path(sys.argv[0]).name if command is None else command)[:_SHOWN_COMMAND]
        self._remedy = remedy

    def acquire(self, path: Path, what: str) -> None:
        """Lock ``path``; raises BusyError, saying who holds it, or StorageError."""
        self._acquire(path, what, None)

    def share(self, path: Path, what: str, key: str) -> None:
        """Lock ``path`` together with all who give the same ``key``; raises as :meth:`acquire`."""
        self._acquire(path, what, key)

    def release(self) -> None:
        """Give all of them back."""
        while self._descriptors:
            descriptor = self._descriptors.pop()
            _open_descriptors.discard(descriptor)
            os.close(descriptor)

    def _acquire(self, path: Path, what: str, key: str | None) -> None:
        if not CAN_LOCK:
            return
        descriptor = _open(path)
        try:
            if not self._lock(descriptor, path, what, key):
                os.close(descriptor)
                return
        except BaseException:
            os.close(descriptor)
            raise
        _open_descriptors.add(descriptor)
        self._descriptors.append(descriptor)

    def _lock(self, descriptor: int, path: Path, what: str, key: str | None) -> bool:
        """Take the lock; false where the file system knows none. Raises BusyError."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if key is not None and _join(descriptor, key):
                return True
            raise BusyError(_complaint(descriptor, what, self._remedy)) from None
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s): start no second run there", path, error.strerror
            )
            return False
        _write_holder(descriptor, self._command, key)
        if key is not None:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _read_holder(descriptor).get("key") != key:
                raise BusyError(_complaint(descriptor, what, self._remedy))
        return True


@contextmanager
def locked_for_a_moment(path: Path, patience_s: float, *, needed: bool = False) -> Iterator[None]:
    """Hold ``path``; after ``patience_s`` go on without, or raise BusyError if ``needed``."""
    locks, until = Locks(), time.monotonic() + patience_s
    while True:
        try:
            locks.acquire(path, str(path))
            break
        except BusyError:
            if time.monotonic() > until:
                if needed:
                    raise
                break
            time.sleep(0.1)
    try:
        yield
    finally:
        locks.release()


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}; allow writing there"
        ) from error


def _join(descriptor: int, key: str) -> bool:
    """Share the lock of others with the same key; they hold it alone while they write theirs."""
    for _ in range(20):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return bool(_read_holder(descriptor).get("key") == key)
        time.sleep(0.05)
    return False


def _complaint(descriptor: int, what: str, remedy: str) -> str:
    holder = _read_holder(descriptor)
    who = (
        f"process {holder['pid']} on {holder['host']}, since {holder['since']}: {holder['command']}"
        if {"pid", "host", "since", "command"} <= holder.keys()
        else "a process that just began"
    )
    return f"{what} is in use by {who}; wait until it has ended, {remedy}"


def _write_holder(descriptor: int, command: str, key: str | None) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "command": command,
        "key": key,
    }
    with suppress(OSError):  # On a full disk the lock holds; only its holder is not told.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _read_holder(descriptor: int) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        value = json.loads(os.pread(descriptor, 4096, 0))
        return value if isinstance(value, dict) else {}
    return {}


def _close_inherited() -> None:
    """Let go of the parent's locks in a forked child, which would else keep them alive."""
    while _open_descriptors:
        os.close(_open_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
