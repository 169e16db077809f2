"""What every command does: errors in one line, requests to end, and how it logs.

It logs as ``conf/logging.yml`` says, wherever it was started; through rich on a terminal.
"""

import logging
import os
import sys
import tarfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click
import yaml
from kedro.framework.cli.utils import _split_params, split_string
from kedro.framework.project import configure_logging, settings

from phoenix_pipeline.framework.error_lines import (
    INTERNAL_ERROR,
    describe,
    wants_traceback,
    write_traceback,
)
from phoenix_pipeline.framework.paths import PATHS, ensure_user
from phoenix_pipeline.framework.project import project_folder
from phoenix_pipeline.framework.secrets import without_secrets
from phoenix_pipeline.framework.stop_signals import end_with_parent, stopped_like_ctrl_c
from phoenix_pipeline.images import encodable

_FILE = "logging.yml"


def use_console(conf_source: str | None, verbose: bool) -> None:
    """Log through rich on a terminal, below its progress bars; plain lines elsewhere.

    Kedro itself looks for ``conf/logging.yml`` in the working directory only.
    """
    text = _logging_file(conf_source or str(project_folder() / settings.CONF_SOURCE))
    if text and not os.environ.get("KEDRO_LOGGING_CONFIG"):
        configure_logging(yaml.safe_load(text))
    root = logging.getLogger()
    logging.captureWarnings(True)
    if verbose:
        logging.getLogger("kedro").setLevel(logging.INFO)
        logging.getLogger("py.warnings").setLevel(logging.WARNING)
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        root.handlers = [RichHandler(show_path=False, log_time_format="%X")]


def _logging_file(conf_source: str) -> str | None:
    """Return the file's text, from a folder or from the archive that ``kedro package`` makes."""
    path = Path(conf_source)
    if path.is_dir():
        file = path / _FILE
        return file.read_text(encoding="utf-8") if file.is_file() else None
    if path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if Path(member.name).name == _FILE else None
                if content:
                    return content.read().decode("utf-8")
    return None


class OneLineCommand(click.Command):
    """A command whose errors are one line on stderr, with the traceback in a file."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the options; a wrong one exits with status 2."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            fail(error, verbose=False)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors exit with the status of :func:`describe`."""
        verbose = bool(ctx.params.pop("verbose", False)) or wants_traceback()
        try:
            with stopped_like_ctrl_c():
                end_with_parent()
                ensure_user()
                use_console(ctx.params.get("conf_source"), verbose)
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            fail(error, verbose)


def fail(error: BaseException, verbose: bool) -> NoReturn:
    """Print the line, keep the traceback, and exit."""
    line, status = describe(error)
    file = write_traceback(error, project_folder())
    if status == INTERNAL_ERROR and file:
        line += f" (a fault of the program; traceback in {file})"
    with suppress(OSError):  # The terminal may be gone.
        if verbose:
            click.echo(without_secrets("".join(traceback.format_exception(error))), err=True)
        click.secho(f"Error: {line}", fg="red", err=True)
    sys.exit(status)


def parse_params(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """Return what ``--params`` sets, as Kedro reads it, but paths as they were written.

    Kedro takes ``data_root=007`` for the number 7, and cannot read paths whose bytes are no text.
    """
    if not isinstance(value, str):
        return _split_params(ctx, option, value)
    items = [item.partition("=") for item in split_string(ctx, option, value)]
    written = {name.strip(): path.strip() for name, _, path in items if name.strip() in PATHS}
    unreadable = {name: path for name, path in written.items() if encodable(path) != path}
    others = (item for item in items if item[0].strip() not in unreadable)
    try:
        params = _split_params(ctx, option, ",".join(map("".join, others)))
    except click.UsageError as error:
        if not any(bracket in value for bracket in "[{"):
            raise
        raise click.UsageError(
            f"{error.message} Commas divide settings here: write a list, or a block of several "
            f"settings, into conf/local/parameters.yml (with --env NAME into conf/NAME)."
        ) from error
    for name, path in written.items():
        if name in unreadable or isinstance(params[name], bool | int | float):
            params[name] = path
    return params
