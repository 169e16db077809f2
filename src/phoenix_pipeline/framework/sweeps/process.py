"""One cell as one ordinary ``kedro run`` in a process of its own.

A process per cell costs some ten seconds of imports. It is worth them: memory goes back to the
system, a crash or a killed process costs one cell, and ``kedro run --config <cell>/run.yml``
repeats the cell by hand.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.framework.error_lines import INTERRUPTED
from phoenix_pipeline.framework.mlflow_runs import CELL_TAG
from phoenix_pipeline.framework.paths import DATA_ROOT, REFERENCES_ROOT
from phoenix_pipeline.framework.stop_signals import lifeline
from phoenix_pipeline.framework.sweeps.cells import Cell, digest
from phoenix_pipeline.framework.sweeps.plan import Sweep

_TAGS_VARIABLE = "MLFLOW_RUN_CONTEXT"
_PATIENCE_S = 20.0


class KedroProcess:
    """Runs arms of a cell; ``quiet`` keeps what they print in ``<cell>/run.log`` only."""

    def __init__(self, sweep: Sweep, quiet: bool = True) -> None:
        """Take the sweep whose cells are to run."""
        self._sweep, self._quiet = sweep, quiet

    def __call__(self, cell: Cell, arms: tuple[str, ...]) -> str | None:
        """Run and return None, or the line that tells what went wrong.

        Raises KeyboardInterrupt when the process was interrupted.
        """
        folder = self._sweep.folder(cell).path
        options = write_run_file(self._sweep, cell, arms)
        command = [sys.executable, "-m", "kedro", "run", "--config", str(options)]
        with (folder / "run.log").open("a", encoding="utf-8") as log:
            log.write(f"--- {', '.join(arms)}\n")
            log.flush()
            start = log.tell()
            target = log if self._quiet else None
            environment = {**os.environ, _TAGS_VARIABLE: json.dumps(self._tags(cell))}
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

    def _tags(self, cell: Cell) -> dict[str, str]:
        """Return what MLflow writes on every run that the process opens."""
        digests = self._sweep.digests[cell.name]
        return {
            "sweep": self._sweep.name,
            CELL_TAG: cell.name,
            "sweep.settings": digest(digests),
        }


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
    """Return the last error line that the process printed since ``start``."""
    with log.open("rb") as stream:
        stream.seek(start)
        lines = stream.read().decode("utf-8", "replace").splitlines()
    said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if said:
        return said[-1]
    ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the process {ended}; see {log}"
