"""``kedro run`` with errors in one line. Kedro finds this module by its name."""

import logging
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines
from kedro.utils import find_kedro_project

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.error_lines import (
    INTERNAL_ERROR,
    describe,
    wants_traceback,
    write_traceback,
)
from phoenix_pipeline.framework.settings_errors import hint


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
        _use_console(verbose)
        try:
            _check_pipelines(ctx.params)
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            fail(error, verbose)


def fail(error: BaseException, verbose: bool) -> NoReturn:
    """Print the line, keep the traceback, and exit."""
    line, status = describe(error)
    if verbose:
        click.echo("".join(traceback.format_exception(error)), err=True)
    file = write_traceback(error, find_kedro_project(Path.cwd()) or Path.cwd())
    if status == INTERNAL_ERROR and file:
        line += f" (a fault of the program; traceback in {file})"
    click.secho(f"Error: {line}", fg="red", err=True)
    sys.exit(status)


def _check_pipelines(options: dict[str, Any]) -> None:
    """Raise SettingsError for a pipeline that is not registered."""
    names = [options["pipeline"]] if options.get("pipeline") else options.get("pipelines") or []
    for name in names:
        if name not in pipelines:
            raise SettingsError(
                f"--pipelines {name}: there is no such pipeline{hint(name, pipelines)}"
            )


def _use_console(verbose: bool) -> None:
    """Log through rich on a terminal, below its progress bars; plain lines elsewhere."""
    root = logging.getLogger()
    logging.captureWarnings(True)
    if verbose:
        logging.getLogger("kedro").setLevel(logging.INFO)
        logging.getLogger("py.warnings").setLevel(logging.WARNING)
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        root.handlers = [RichHandler(show_path=False, log_time_format="%X")]


run = OneLineCommand(
    name="run",
    callback=kedro_run.callback,
    params=[
        *kedro_run.params,
        click.Option(["--verbose", "-v"], is_flag=True, help="Print tracebacks and warnings."),
    ],
    help="Run the pipelines: every arm and the comparison, or those named by --pipelines.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, name=__package__)
def cli() -> None:
    """Commands of this project."""


cli.add_command(run)
