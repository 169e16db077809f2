"""An exception as the one line that its reader needs, and the exit status that goes with it."""

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
from kedro.config import BadConfigException, MissingConfigException
from kedro.framework.session.abstract_session import KedroSessionError
from kedro.io import DatasetError
from kedro.pipeline.pipeline import PipelineError
from kedro.validation import ParameterValidationError
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.framework.secrets import without_secrets
from phoenix_pipeline.framework.stop_signals import Stopped
from phoenix_pipeline.hardware import out_of_memory

USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130

# What these say is caused by the command line, a configuration file or a data file.
_USERS_OWN = (
    PhoenixError,
    ParameterValidationError,
    DatasetError,
    MissingConfigException,
    BadConfigException,
    OmegaConfBaseException,
    YAMLError,
    KedroSessionError,
    PipelineError,
)


def describe(error: BaseException) -> tuple[str, int]:
    """Return the line for ``error`` and the exit status.

    Status 2: a user, a file or a client caused it; 130: interrupted; 128 + n: ended by signal n;
    1: a fault of the program.
    """
    if isinstance(error, KeyboardInterrupt):
        what, status = "interrupted", INTERRUPTED
        if isinstance(error, Stopped):
            what, status = f"ended by {error}", 128 + error.number
        return f"{what}; start the same command again to go on from the last checkpoint", status
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message()), USER_ERROR
    if line := next(filter(None, map(_line_of_cause, _causes(error))), None):
        return line, USER_ERROR
    if isinstance(error, _USERS_OWN) or _raised_by_kedro(error):
        return _one_line(str(error)), USER_ERROR
    return f"{type(error).__name__}: {_one_line(str(error))}", INTERNAL_ERROR


def _line_of_cause(cause: BaseException) -> str | None:
    """Return the line for ``cause``, if a user can do something about it."""
    if isinstance(cause, PhoenixError):
        return _one_line(str(cause))
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {cause.filename}" if cause.filename else ""
        return f"the disk is full{where}; free some space and run again"
    return out_of_memory(cause)


def write_traceback(error: BaseException, project: Path) -> Path | None:
    """Keep the whole traceback in ``logs/traceback.log``; None where that is not possible."""
    path = project / "logs" / "traceback.log"
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        text = without_secrets("".join(traceback.format_exception(error)))
        path.write_text(text, encoding="utf-8")
        return path
    return None


def wants_traceback() -> bool:
    """Tell whether the user asked for tracebacks by PHOENIX_TRACEBACK=1."""
    return os.environ.get("PHOENIX_TRACEBACK", "0") not in ("", "0")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _raised_by_kedro(error: BaseException) -> bool:
    """Tell a wrong option (Kedro raises ValueError for unknown nodes and tags) from a fault."""
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return False
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return f"{os.sep}kedro{os.sep}" in last


def _one_line(text: str) -> str:
    return without_secrets(" ".join(text.split()))
