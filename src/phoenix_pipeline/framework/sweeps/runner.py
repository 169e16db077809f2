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

from phoenix_pipeline.errors import PhoenixError, SettingsError
from phoenix_pipeline.framework.settings_errors import hint
from phoenix_pipeline.framework.sweeps.cells import Cell, digest
from phoenix_pipeline.framework.sweeps.plan import Sweep
from phoenix_pipeline.reporting.vocabulary import describe_metric

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


def run_sweep(sweep: Sweep, execute: Execute) -> Progress:
    """Visit the cells and return what became of them.

    ``execute`` runs arms of a cell and returns None or the line that tells what went wrong. When a
    run of several arms fails, each arm gets a run of its own, so that a fault costs only its arm.
    """
    study = open_study(sweep)
    cells = {tuple(cell.labels.values()): cell for cell in sweep.cells}
    progress = Progress()
    seconds: list[float] = []

    def visit(trial: "Trial") -> float:
        labels = {axis: trial.suggest_categorical(axis, values) for axis, values in axes.items()}
        cell = cells[tuple(labels.values())]
        trial.set_user_attr("cell", cell.name)
        if not sweep.missing(cell):
            logger.info("[%s] %s: done already", _place(), cell.name)
            progress.skipped.append(cell.name)
            return _value(sweep, cell)
        logger.info("[%s] %s%s", _place(), cell.name, _remaining(seconds, total - _visited()))
        began = time.perf_counter()
        _run_cell(sweep, cell, execute, progress)
        seconds.append(time.perf_counter() - began)
        logger.info("%s took %.0f s", cell.name, seconds[-1])
        progress.ran.append(cell.name)
        return _value(sweep, cell)

    def _visited() -> int:
        return len(progress.ran) + len(progress.skipped) + len(progress.failed)

    def _place() -> str:
        return f"{_visited() + 1}/{total}"

    axes = _axes(sweep)
    # A process that was killed may have left a cell that it had queued but not begun.
    queued = len(study.get_trials(deepcopy=False, states=_states("WAITING")))
    if sweep.config.search is None:
        total = queued + len(sweep.cells)
        for cell in sweep.cells:
            study.enqueue_trial(cell.labels)
            study.optimize(visit, n_trials=1, catch=(CellFailed,))
        left = queued
    else:
        left = total = _trials_left(sweep.config.search.trials, study)
    if left:
        study.optimize(visit, n_trials=left, catch=(CellFailed,))
    return progress


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


def _trials_left(wanted: int, study: "Study") -> int:
    """Return how many trials of a search are still to be made."""
    return max(0, wanted - len(study.get_trials(deepcopy=False, states=_states("COMPLETE"))))


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


def _remaining(seconds: list[float], cells: int) -> str:
    """Return a guess of the time that is left, once a cell has been timed."""
    if not seconds:
        return ""
    minutes = sum(seconds) / len(seconds) * cells / 60
    return f" (about {minutes:.0f} min left)" if minutes >= 1 else ""
