"""What every command does: errors in one line, requests to end, and how it logs."""

import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click
from kedro.framework.cli.utils import _split_params, split_string

from phoenix_pipeline.framework.console import use_console
from phoenix_pipeline.framework.error_lines import (
    INTERNAL_ERROR,
    describe,
    wants_traceback,
    write_traceback,
)
from phoenix_pipeline.framework.paths import PATHS
from phoenix_pipeline.framework.project import project_folder
from phoenix_pipeline.framework.secrets import without_secrets
from phoenix_pipeline.framework.stop_signals import end_with_parent, stopped_like_ctrl_c
from phoenix_pipeline.framework.unknown_user import ensure_user
from phoenix_pipeline.images import encodable


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
    params = _split_params(ctx, option, ",".join(map("".join, others)))
    for name, path in written.items():
        if name in unreadable or isinstance(params[name], bool | int | float):
            params[name] = path
    return params
