"""Locks on files, released by the system when the process that holds them ends, however it ends.

They are ``filelock``'s; this adds who holds one, and locks that are shared by those who agree.
"""

import errno
import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from phoenix_pipeline.errors import BusyError, StorageError

logger = logging.getLogger(__name__)

_SHOWN_COMMAND = 200
# Of those who look who shares a lock.
_PATIENCE_S = 5.0
# A lock that is collected is released: these last until they are given back.
_HELD: set[FileLock] = set()


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
        self._held: list[FileLock] = []
        self._command = (Path(sys.argv[0]).name if command is None else command)[:_SHOWN_COMMAND]
        self._remedy = remedy

    def acquire(self, path: Path, what: str) -> None:
        """Lock ``path``; raises BusyError, saying who holds it, or StorageError."""
        lock = _acquire(path)
        if lock is None:
            raise BusyError(_complaint(path, what, self._remedy))
        if sharer := next(_sharers(path), None):
            lock.release()
            raise BusyError(_complaint(sharer, what, self._remedy))
        self._held.append(lock)
        _HELD.add(lock)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            "command": self._command,
        }
        with suppress(OSError):  # On a full disk the lock holds; only its holder is not told.
            path.write_text(json.dumps(holder), encoding="utf-8")

    def share(self, path: Path, what: str, key: str) -> None:
        """Lock ``path`` together with all who give the same ``key``; raises as :meth:`acquire`.

        Each has a file of its own beside ``path``, which is locked only while they are looked at.
        """
        looking = _acquire(path, _PATIENCE_S)
        if looking is None:
            raise BusyError(_complaint(path, what, self._remedy))
        try:
            for other in _sharers(path):
                if not other.name.startswith(f"{path.stem}.{key}-"):
                    raise BusyError(_complaint(other, what, self._remedy))
            own = path.with_name(f"{path.stem}.{key}-{secrets.token_hex(4)}.lock")
            self.acquire(own, what)
        finally:
            looking.release()

    def release(self) -> None:
        """Give all of them back."""
        while self._held:
            lock = self._held.pop()
            _HELD.discard(lock)
            lock.release()


@contextmanager
def locked_for_a_moment(path: Path, patience_s: float, *, needed: bool = False) -> Iterator[None]:
    """Hold ``path``; after ``patience_s`` go on without, or raise BusyError if ``needed``."""
    lock = _acquire(path, patience_s)
    if lock is None and needed:
        raise BusyError(_complaint(path, str(path), "or name another folder for this one"))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(path: Path, patience_s: float = 0.0) -> FileLock | None:
    """Return the lock, taken; None where another holds it. Raises StorageError."""
    lock = FileLock(path, timeout=patience_s, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise StorageError(
                f"{path} cannot be written: {error.strerror}; allow writing there"
            ) from error
        logger.warning("%s cannot be locked (%s): start no second run there", path, error.strerror)
    return lock


def _sharers(path: Path) -> Iterator[Path]:
    """Yield the files of those who share ``path``, oldest first; remove those of the ended."""
    files = path.parent.glob(f"{path.stem}.*-*.lock")
    for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file)):
        lock = _acquire(file)
        if lock is None:
            yield file
        else:
            with suppress(OSError):
                file.unlink(missing_ok=True)
            lock.release()


def _complaint(path: Path, what: str, remedy: str) -> str:
    who = "a process that just began"
    with suppress(OSError, ValueError, TypeError, KeyError):
        holder = json.loads(path.read_text(encoding="utf-8"))
        who = "process {pid} on {host}, since {since}: {command}".format_map(holder)
    return f"{what} is in use by {who}; wait until it has ended, {remedy}"
