"""``kedro sweep``: run what is missing, then write tables and figures, then say what failed."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from phoenix_pipeline.errors import PhoenixError
from phoenix_pipeline.file_locks import Locks
from phoenix_pipeline.framework.run_lock import FOLDER
from phoenix_pipeline.framework.secrets import shown_command
from phoenix_pipeline.framework.sweeps.plan import Sweep, prepare_sweep
from phoenix_pipeline.framework.sweeps.results import collect, publish, track
from phoenix_pipeline.framework.sweeps.runner import KedroProcess, run_sweep
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.reporting.sweep_tables import format_summary, summarize

logger = logging.getLogger(__name__)


class SweepError(PhoenixError):
    """Some cells of a sweep failed; the others have their results."""


def sweep_command(
    project: Path,
    name: str,
    env: str | None,
    *,
    run: bool = True,
    quiet: bool = True,
    then: Callable[[Sweep], object] = lambda sweep: None,
) -> None:
    """Run the sweep's missing cells, unless ``run`` is false, and publish what there is.

    ``then`` adds to what is published. Raises SettingsError before any cell runs, and SweepError
    at the end when cells failed.
    """
    sweep = prepare_sweep(project, name, env)
    failed: dict[str, str] = {}
    if run:
        # Cells that show their output have bars of their own.
        bar = progress_bar(name, len(sweep.cells)) if quiet else nullcontext(lambda cells: None)
        locks = Locks(shown_command())
        locks.acquire(sweep.data / FOLDER / "sweep.lock", f"the sweep {sweep.name}")
        try:
            with bar as advance:
                failed = run_sweep(sweep, KedroProcess(sweep, quiet), advance).failed
        finally:
            locks.release()
    everything = set(sweep.config.pipelines)
    if failed and all(set(sweep.missing(cell)) == everything for cell in sweep.cells):
        raise SweepError(_complaint(sweep, failed))
    table = collect(sweep)
    files = publish(sweep, table)
    track(sweep, files)
    summary = summarize(table, sweep.config.repeated_axes, sweep.config.metrics)
    logger.info("sweep %s\n%s", sweep.name, format_summary(summary))
    logger.info("tables and figures: %s", sweep.reporting)
    then(sweep)
    if failed:
        raise SweepError(_complaint(sweep, failed))


def list_cells(project: Path, name: str, env: str | None) -> None:
    """Log each cell and what of it is missing; run nothing."""
    sweep = prepare_sweep(project, name, env)
    for cell in sweep.cells:
        missing = sweep.missing(cell)
        logger.info("%s: %s", cell.name, f"missing {', '.join(missing)}" if missing else "done")
    done = sum(not sweep.missing(cell) for cell in sweep.cells)
    logger.info("%d of %d cells are done", done, len(sweep.cells))


def _complaint(sweep: Sweep, failed: dict[str, str]) -> str:
    reasons = "; ".join(f"{cell}: {reason}" for cell, reason in failed.items())
    return (
        f"{len(failed)} of {len(sweep.cells)} cells failed ({reasons}); the same command tries "
        "them again"
    )
