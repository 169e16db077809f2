"""The project's commands, with errors in one line. Kedro finds this module by its name."""

from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import pipelines

from phoenix_pipeline.framework.arm_blocks import arm_registry
from phoenix_pipeline.framework.command import OneLineCommand, parse_params
from phoenix_pipeline.framework.option_names import check_names
from phoenix_pipeline.framework.project import open_config, project_folder
from phoenix_pipeline.offline import stay_offline

stay_offline()

_RUNNER = "phoenix_pipeline.framework.arms_runner.ArmsRunner"


def _run(**options: Any) -> None:
    """Check names, then run."""
    options["runner"] = options.get("runner") or _RUNNER
    config = open_config(
        project_folder(), options.get("env"), options.get("params"), options.get("conf_source")
    )
    arm_registry.use(config.arms, config.on_request)
    check_names(options, pipelines)
    kedro_run.callback(**options)  # type: ignore[misc]


_VERBOSE: dict[str, Any] = {"is_flag": True, "help": "Print tracebacks and warnings."}

run = OneLineCommand(
    name="run",
    callback=_run,
    params=[
        *(option for option in kedro_run.params if option.name != "params"),
        click.Option(
            ["--params"],
            type=click.UNPROCESSED,
            default="",
            callback=parse_params,
            help="Settings of this run: federation.num_rounds=20,fedavg.training.batch_size=32",
        ),
        click.Option(["--verbose", "-v"], **_VERBOSE),
    ],
    help="Run the pipelines: every arm and the comparison, or those named by --pipelines.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, name=__package__)
def cli() -> None:
    """Commands of this project."""


cli.add_command(run)
_verbose = click.option("--verbose", "-v", **_VERBOSE)
_env = click.option("--env", "-e", help="Kedro environment; its results lie apart.")
_list = click.option("--list", "only_list", is_flag=True, help="List the cells; run nothing.")
_tables = click.option("--no-run", is_flag=True, help="Only tables and figures of what is done.")
_output = click.option("--show-output", is_flag=True, help="Show what the cells print.")


@cli.command(cls=OneLineCommand)
@click.argument("client", type=int)
@click.option("--to", required=True, help="Folder to write.")
@click.option("--arm", default="personalization", show_default=True)
@_env
@click.option("--data-root", help="Where the results lie, if not in --env's folder.")
@_verbose
def assemble(client: int, to: str, arm: str, env: str | None, data_root: str | None) -> None:
    """Write one CLIENT's complete model: the shared body with its own layers.

    For diffusion, DDPMPipeline.from_pretrained loads it.
    """
    from phoenix_pipeline.framework.sample_export import assemble_arm

    assemble_arm(project_folder(), env, data_root, arm, client, Path(to))
    click.echo(f"the model of client {client} is in {to}")


_COUNT: dict[str, Any] = {"type": click.IntRange(min=1), "default": 1000, "show_default": True}
_SEED: dict[str, Any] = {"type": click.IntRange(min=0), "default": 0, "show_default": True}
_FORMAT: dict[str, Any] = {
    "type": click.Choice(["png", "parquet"]),
    "default": "png",
    "show_default": True,
}


@cli.command(cls=OneLineCommand)
@click.argument("arm", metavar="ARM")
@click.option("--to", required=True, help="Folder to make; it must not exist.")
@click.option("--num-images", "-n", **_COUNT, help="Images to draw.")
@click.option("--seed", **_SEED, help="Seed of these images; none is one of the run's own samples.")
@click.option(
    "--format", "layout", **_FORMAT, help="One PNG each with a table, or one Parquet file."
)
@click.option("--client", type=int, help="Draw from this client's own model alone.")
@_env
@click.option(
    "--params",
    default="",
    callback=parse_params,
    help="As in `kedro run`: sampling.num_steps=50,run.device=cpu,data_root=...",
)
@_verbose
def export_samples(
    arm: str,
    to: str,
    num_images: int,
    seed: int,
    layout: str,
    client: int | None,
    env: str | None,
    params: dict[str, Any],
) -> None:
    """Draw images from the trained model of ARM into a new folder, with a data card."""
    from phoenix_pipeline.framework.sample_export import export_arm

    card = export_arm(
        project_folder(), env, params, arm, Path(to), num_images, seed, layout, client
    )
    click.echo(f"{card['num_images']} images of {arm} and their data card are in {to}")


@cli.command(cls=OneLineCommand)
@click.argument("name")
@_env
@_list
@_tables
@_output
@_verbose
def sweep(name: str, env: str | None, only_list: bool, no_run: bool, show_output: bool) -> None:
    """Run the grid of conf/sweeps/NAME.yml, as far as its cells are not done yet."""
    _sweep(name, env, only_list, no_run, show_output)


def _sweep(
    name: str, env: str | None, only_list: bool, no_run: bool, show_output: bool, **then: Any
) -> None:
    from phoenix_pipeline.framework.sweeps.command import list_cells, sweep_command

    if only_list:
        list_cells(project_folder(), name, env)
    else:
        sweep_command(project_folder(), name, env, run=not no_run, quiet=not show_output, **then)


@cli.command(cls=OneLineCommand)
@_env
@_list
@_tables
@_output
@_verbose
def claims(env: str | None, only_list: bool, no_run: bool, show_output: bool) -> None:
    """Run the sweep `claims` as far as it is not done, then write the paper's figures."""
    from phoenix_pipeline.framework.sweeps.claims import SWEEP, write_claims

    _sweep(SWEEP, env, only_list, no_run, show_output, then=write_claims)


@cli.command(cls=OneLineCommand)
@_env
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@_verbose
def ui(env: str | None, port: int) -> None:
    """Show the recorded runs side by side in MLflow's pages."""
    from phoenix_pipeline.framework.mlflow_ui import show_runs

    show_runs(project_folder(), env, port)
