"""Run the cells of a sweep that are not done yet, one after another.

Whether a cell is done is read from its folder alone. Each is one ordinary ``kedro run`` in a
process of its own, which costs some ten seconds of imports. It is worth them: memory goes back to
the system, a crash or a killed process costs one cell, and ``kedro run --config <cell>/run.yml``
repeats the cell by hand.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.config.settings_errors import hint
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.error_lines import INTERRUPTED
from phoenix_pipeline.framework.mlflow_runs import CELL_TAG
from phoenix_pipeline.framework.paths import DATA_ROOT, REFERENCES_ROOT
from phoenix_pipeline.framework.stop_signals import lifeline
from phoenix_pipeline.framework.sweeps.cells import Cell, digest
from phoenix_pipeline.framework.sweeps.plan import Sweep

logger = logging.getLogger(__name__)

_TAGS_VARIABLE = "MLFLOW_RUN_CONTEXT"
_PATIENCE_S = 20.0

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
    began = time.perf_counter()
    if reason := _run_cell(sweep, cell, execute):
        outcome.failed[cell.name] = reason
        logger.error("%s failed: %s", cell.name, reason)
        return
    logger.info("%s took %.0f s", cell.name, time.perf_counter() - began)
    outcome.ran.append(cell.name)
    _check_metric(sweep, cell)


def _run_cell(sweep: Sweep, cell: Cell, execute: Execute) -> str | None:
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


class KedroProcess:
    """Runs arms of a cell; ``quiet`` keeps what they print in ``<cell>/run.log`` only."""

    def __init__(self, sweep: Sweep, quiet: bool = True) -> None:
        self._sweep, self._quiet = sweep, quiet

    def __call__(self, cell: Cell, arms: tuple[str, ...]) -> str | None:
        """Run; return None or what went wrong; raises KeyboardInterrupt."""
        folder = self._sweep.folder(cell).path
        options = write_run_file(self._sweep, cell, arms)
        command = [sys.executable, "-m", "kedro", "run", "--config", str(options)]
        with (folder / "run.log").open("a", encoding="utf-8") as log:
            log.write(f"--- {', '.join(arms)}\n")
            log.flush()
            start = log.tell()
            target = log if self._quiet else None
            # What MLflow writes on every run that the process opens.
            tags = {
                "sweep": self._sweep.name,
                CELL_TAG: cell.name,
                "sweep.settings": digest(self._sweep.digests[cell.name]),
            }
            environment = {**os.environ, _TAGS_VARIABLE: json.dumps(tags)}
            with lifeline() as line:
                status = _wait(
                    subprocess.Popen(
                        command,
                        cwd=self._sweep.project,
                        env=environment | (line or {}),
                        pass_fds=[int(descriptor) for descriptor in (line or {}).values()],
                        stdout=target,
                        stderr=target,
                    )
                )
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        return None if status == 0 else _reason(folder / "run.log", start, status)


def write_run_file(sweep: Sweep, cell: Cell, arms: tuple[str, ...]) -> Path:
    """Write the options of ``kedro run`` for these arms and return the file."""
    parameters = {
        **cell.parameters,
        DATA_ROOT: sweep.cell_root(cell).as_posix(),
        REFERENCES_ROOT: sweep.references_root.as_posix(),
    }
    options: dict[str, Any] = {"pipelines": ",".join(arms), "params": parameters}
    if sweep.env:
        options["env"] = sweep.env
    path = sweep.folder(cell).path / "run.yml"
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump({"run": options}, sort_keys=False), encoding="utf-8")
    return path


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Return the exit status; a process is not left behind when this one is told to stop."""
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _reason(log: Path, start: int, status: int) -> str:
    with log.open("rb") as stream:
        stream.seek(start)
        lines = stream.read().decode("utf-8", "replace").splitlines()
    said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if said:
        return said[-1]
    ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the process {ended}; see {log}"
