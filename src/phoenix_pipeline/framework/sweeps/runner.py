"""Run the cells of a sweep that are not done yet, one after another.

Whether a cell is done is read from its folder alone.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from phoenix_pipeline.config.settings_errors import hint
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.sweeps.cells import Cell
from phoenix_pipeline.framework.sweeps.plan import Sweep

logger = logging.getLogger(__name__)

Execute = Callable[[Cell, tuple[str, ...]], str | None]


@dataclass
class SweepOutcome:
    """What one call of :func:`run_sweep` did: cells that ran, were done before, or failed."""

    ran: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_sweep(
    sweep: Sweep, execute: Execute, advance: Callable[[int], None] = lambda cells: None
) -> SweepOutcome:
    """Visit the cells and return what became of them; ``advance(1)`` is called after each.

    ``execute`` runs arms of a cell and returns None or the line that tells what went wrong. When a
    run of several arms fails, each arm gets a run of its own, so that a fault costs only its arm.
    """
    outcome = SweepOutcome()
    for number, cell in enumerate(sweep.cells, start=1):
        place = f"[{number}/{len(sweep.cells)}] {cell.name}"
        if not sweep.missing(cell):
            logger.info("%s: done already", place)
            outcome.skipped.append(cell.name)
        else:
            logger.info("%s", place)
            _visit(sweep, cell, execute, outcome)
        advance(1)
    return outcome


def _visit(sweep: Sweep, cell: Cell, execute: Execute, outcome: SweepOutcome) -> None:
    """Run a cell; note in ``outcome`` what became of it."""
    began = time.perf_counter()
    if reason := _run_cell(sweep, cell, execute):
        outcome.failed[cell.name] = reason
        logger.error("%s failed: %s", cell.name, reason)
        return
    logger.info("%s took %.0f s", cell.name, time.perf_counter() - began)
    outcome.ran.append(cell.name)
    _check_metric(sweep, cell)


def _run_cell(sweep: Sweep, cell: Cell, execute: Execute) -> str | None:
    """Run the arms that are missing; return what went wrong."""
    reason = _attempt(sweep, cell, sweep.missing(cell), execute)
    left = sweep.missing(cell)
    if reason is not None and len(left) > 1:
        logger.warning("%s: %s; each arm now runs alone", cell.name, reason)
        reason = _join({arm: _attempt(sweep, cell, (arm,), execute) for arm in left})
    return reason


def _join(reasons: dict[str, str | None]) -> str | None:
    """Return one line that names each reason once, with its arms; None when nothing failed."""
    arms_of: dict[str, list[str]] = {}
    for arm, reason in reasons.items():
        if reason is not None:
            arms_of.setdefault(reason, []).append(arm)
    return "; ".join(f"{', '.join(arms)}: {why}" for why, arms in arms_of.items()) or None


def _attempt(sweep: Sweep, cell: Cell, arms: tuple[str, ...], execute: Execute) -> str | None:
    folder, digests = sweep.folder(cell), sweep.digests[cell.name]
    for arm in arms:
        folder.forget(arm)
    folder.path.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    reason = execute(cell, arms)
    if reason is None:
        folder.mark_done({arm: digests[arm] for arm in arms}, time.perf_counter() - began)
    return reason


def _check_metric(sweep: Sweep, cell: Cell) -> None:
    """Raise SettingsError for a first metric that the first arm does not have."""
    arm, metric = sweep.config.pipelines[0], sweep.config.metrics[0]
    scores = sweep.folder(cell).metrics(arm)["scores"]
    if metric not in scores:
        raise SettingsError(
            f"{metric} is no score of {arm}{hint(metric, scores)}; change metrics of the sweep "
            f"{sweep.name}"
        )
