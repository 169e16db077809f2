"""The project's commands, with errors in one line. Kedro finds this module by its name."""

import logging
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import _split_params
from kedro.framework.project import pipelines
from kedro.utils import find_kedro_project

from phoenix_pipeline.arms import ARMS
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.error_lines import (
    INTERNAL_ERROR,
    describe,
    wants_traceback,
    write_traceback,
)
from phoenix_pipeline.framework.secrets import without_secrets
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
        click.echo(without_secrets("".join(traceback.format_exception(error))), err=True)
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


_ENV = click.Option(["--env", "-e"], help="Kedro environment; its results lie apart.")
_LIST = click.Option(["--list", "only_list"], is_flag=True, help="List the cells; run nothing.")
_TABLES = click.Option(["--no-run"], is_flag=True, help="Only tables and figures of what is done.")
_OUTPUT = click.Option(["--show-output"], is_flag=True, help="Show what the cells print.")
_VERBOSE = click.Option(["--verbose", "-v"], is_flag=True, help="Print tracebacks and warnings.")


def _sweep(name: str, env: str | None, only_list: bool, no_run: bool, show_output: bool) -> None:
    from phoenix_pipeline.framework.sweeps.command import list_cells, sweep_command

    if only_list:
        list_cells(_project(), name, env)
    else:
        sweep_command(_project(), name, env, run=not no_run, quiet=not show_output)


def _claims(env: str | None, only_list: bool, no_run: bool, show_output: bool) -> None:
    from phoenix_pipeline.framework.sweeps.claims import SWEEP, write_claims
    from phoenix_pipeline.framework.sweeps.command import list_cells, sweep_command

    if only_list:
        list_cells(_project(), SWEEP, env)
    else:
        sweep_command(
            _project(), SWEEP, env, run=not no_run, quiet=not show_output, then=write_claims
        )


def _project() -> Path:
    return (find_kedro_project(Path.cwd()) or Path.cwd()).resolve()


sweep = OneLineCommand(
    name="sweep",
    callback=_sweep,
    params=[click.Argument(["name"]), _ENV, _LIST, _TABLES, _OUTPUT, _VERBOSE],
    help="Run the grid of conf/sweeps/NAME.yml, as far as its cells are not done yet.",
)

claims = OneLineCommand(
    name="claims",
    callback=_claims,
    params=[_ENV, _LIST, _TABLES, _OUTPUT, _VERBOSE],
    help="Run the sweep `claims` as far as it is not done, then write the paper's figures.",
)


def _assemble(client: int, to: str, arm: str, data_root: str) -> None:
    from phoenix_pipeline.families.model_folder import assemble_client

    folder = _project() / data_root / "06_models" / arm
    assemble_client(folder, client, Path(to))
    click.echo(f"the model of client {client} is in {to}")


assemble = OneLineCommand(
    name="assemble",
    callback=_assemble,
    params=[
        click.Argument(["client"], type=int),
        click.Option(["--to"], required=True, help="Folder to write."),
        click.Option(
            ["--arm"], type=click.Choice(ARMS), default="personalization", show_default=True
        ),
        click.Option(["--data-root"], default="data", show_default=True),
        _VERBOSE,
    ],
    help="Write one CLIENT's complete model: the shared body with its own layers. For diffusion, "
    "DDPMPipeline.from_pretrained loads it.",
)


def _export_samples(
    arm: str,
    to: str,
    num_images: int,
    seed: int,
    layout: str,
    client: int | None,
    env: str | None,
    params: dict[str, Any],
) -> None:
    from phoenix_pipeline.framework.sample_export import export_arm

    card = export_arm(_project(), env, params, arm, Path(to), num_images, seed, layout, client)
    click.echo(f"{card['num_images']} images of {arm} and their data card are in {to}")


export_samples = OneLineCommand(
    name="export-samples",
    callback=_export_samples,
    params=[
        click.Argument(["arm"], type=click.Choice(ARMS), metavar="ARM"),
        click.Option(["--to"], required=True, help="Folder to make; it must not exist."),
        click.Option(
            ["--num-images", "-n"],
            type=click.IntRange(min=1),
            default=1000,
            show_default=True,
            help="Images to draw.",
        ),
        click.Option(
            ["--seed"],
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Seed of these images; none is one of the run's own samples.",
        ),
        click.Option(
            ["--format", "layout"],
            type=click.Choice(["png", "parquet"]),
            default="png",
            show_default=True,
            help="One PNG each with a table, or one Parquet file.",
        ),
        click.Option(["--client"], type=int, help="Draw from this client's own model alone."),
        _ENV,
        click.Option(
            ["--params"],
            default="",
            callback=_split_params,
            help="As in `kedro run`: sampling.num_steps=50,run.device=cpu,data_root=...",
        ),
        _VERBOSE,
    ],
    help="Draw images from the trained model of ARM into a new folder, with a data card.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, name=__package__)
def cli() -> None:
    """Commands of this project."""


cli.add_command(run)
cli.add_command(assemble)
cli.add_command(export_samples)
cli.add_command(sweep)
cli.add_command(claims)
