"""Run the cells that are not done yet, one after another, through an Optuna study.

Whether a cell is done is read from its folder, never from the study: the study gives the order
(the whole grid, or TPE's choice), keeps a record that ``optuna-dashboard`` can open, and survives
a killed process.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from phoenix_pipeline.config.settings_errors import hint
from phoenix_pipeline.errors import PhoenixError, SettingsError
from phoenix_pipeline.framework.sweeps.cells import Cell, digest
from phoenix_pipeline.framework.sweeps.plan import Sweep
from phoenix_pipeline.reporting.vocabulary import (
    describe_metric,
)

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import TrialState

logger = logging.getLogger(__name__)

Execute = Callable[[Cell, tuple[str, ...]], str | None]


class CellFailed(PhoenixError):
    """One cell of a sweep ended with an error; the others go on."""


@dataclass
class Progress:
    """What one call of :func:`run_sweep` did: cells that ran, were done before, or failed."""

    ran: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_sweep(
    sweep: Sweep, execute: Execute, advance: Callable[[int], None] = lambda cells: None
) -> Progress:
    """Visit the cells and return what became of them; ``advance(1)`` is called after each.

    ``execute`` runs arms of a cell and returns None or the line that tells what went wrong. When a
    run of several arms fails, each arm gets a run of its own, so that a fault costs only its arm.
    """
    study = open_study(sweep)
    # A process that was killed may have left a cell that it had queued but not begun.
    queued = len(study.get_trials(deepcopy=False, states=_states("WAITING")))
    visits = _Visits(sweep, execute, advance, _planned_visits(sweep, study))
    if sweep.config.search is None:
        for cell in sweep.cells:
            study.enqueue_trial(cell.labels)
            study.optimize(visits.visit, n_trials=1, catch=(CellFailed,))
        left = queued
    else:
        left = visits.total
    if left:
        study.optimize(visits.visit, n_trials=left, catch=(CellFailed,))
    return visits.progress


class _Visits:
    """What Optuna calls for each cell; keeps count of what became of them."""

    def __init__(
        self, sweep: Sweep, execute: Execute, advance: Callable[[int], None], total: int
    ) -> None:
        """Take what runs a cell, and how many visits there will be."""
        self.total, self.progress = total, Progress()
        self._sweep, self._execute, self._advance = sweep, execute, advance
        self._axes = _axes(sweep)
        self._cells = {tuple(cell.labels.values()): cell for cell in sweep.cells}
        self._visited = 0

    def visit(self, trial: "Trial") -> float:
        """Run the trial's cell unless it is done; return the score that the study records."""
        labels = [trial.suggest_categorical(axis, self._axes[axis]) for axis in self._axes]
        cell = self._cells[tuple(labels)]
        trial.set_user_attr("cell", cell.name)
        self._visited += 1
        place = f"[{self._visited}/{self.total}] {cell.name}"
        try:
            if self._sweep.missing(cell):
                logger.info("%s", place)
                began = time.perf_counter()
                _run_cell(self._sweep, cell, self._execute, self.progress)
                logger.info("%s took %.0f s", cell.name, time.perf_counter() - began)
                self.progress.ran.append(cell.name)
            else:
                logger.info("%s: done already", place)
                self.progress.skipped.append(cell.name)
        finally:
            self._advance(1)
        return _value(self._sweep, cell)


def _planned_visits(sweep: Sweep, study: "Study") -> int:
    """Return how many cells are to be visited: the whole grid, or what a search has left."""
    if sweep.config.search is None:
        return len(sweep.cells)
    done = len(study.get_trials(deepcopy=False, states=_states("COMPLETE")))
    return max(0, sweep.config.search.trials - done)


def open_study(sweep: Sweep) -> "Study":
    """Open the sweep's study, or begin one; trials that a killed process left are closed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    sweep.data.mkdir(parents=True, exist_ok=True)
    better = describe_metric(sweep.config.objective[1]).better
    study = optuna.create_study(
        # A study's axes are fixed: other values need another study in the same file.
        study_name=f"{sweep.name}-{digest([_axes(sweep), sweep.config.objective])}",
        storage=f"sqlite:///{(sweep.data / 'study.db').as_posix()}",
        sampler=optuna.samplers.TPESampler(seed=0),
        direction="maximize" if better == "higher" else "minimize",
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=_states("RUNNING")):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _states(name: str) -> "tuple[TrialState, ...]":
    from optuna.trial import TrialState

    return (TrialState[name],)


def _run_cell(sweep: Sweep, cell: Cell, execute: Execute, progress: Progress) -> None:
    """Run the arms that are missing; raises CellFailed, after noting why, when one fails."""
    reason = _attempt(sweep, cell, sweep.missing(cell), execute)
    left = sweep.missing(cell)
    if reason is not None and len(left) > 1:
        logger.warning("%s: %s; each arm now runs alone", cell.name, reason)
        reasons = {arm: _attempt(sweep, cell, (arm,), execute) for arm in left}
        reason = _join(reasons)
    if reason is not None:
        progress.failed[cell.name] = reason
        logger.error("%s failed: %s", cell.name, reason)
        raise CellFailed(f"{cell.name}: {reason}")


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


def _axes(sweep: Sweep) -> dict[str, list[str]]:
    return {
        axis: list(dict.fromkeys(cell.labels[axis] for cell in sweep.cells))
        for axis in sweep.config.grid
    }


def _value(sweep: Sweep, cell: Cell) -> float:
    """Return the score that the study records; raises SettingsError when there is none such."""
    arm, metric = sweep.config.objective
    scores = sweep.folder(cell).scores(arm)
    if metric not in scores:
        raise SettingsError(
            f"{metric} is no score of {arm}{hint(metric, scores)}; change metrics or search.metric "
            f"of the sweep {sweep.name}"
        )
    value = scores[metric]
    return math.nan if value is None else float(value)
