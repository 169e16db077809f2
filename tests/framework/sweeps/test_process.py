"""A sweep that is killed takes its cell along; two sweeps of one name do not run side by side."""

import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoenix_pipeline.cli import sweep as sweep_command
from phoenix_pipeline.file_locks import Locks
from phoenix_pipeline.framework.sweeps.plan import prepare_sweep

RUN_A_CELL = """
import sys
from pathlib import Path
from kedro.framework.startup import bootstrap_project
bootstrap_project(Path.cwd())
from phoenix_pipeline.framework.sweeps.plan import prepare_sweep
from phoenix_pipeline.framework.sweeps.runner import KedroProcess
sweep = prepare_sweep(Path.cwd(), "grid")
sys.executable = sys.argv[1]
KedroProcess(sweep)(sweep.cells[0], ("fedavg",))
"""
CELL = """
import os, time
from pathlib import Path
from phoenix_pipeline.framework.command import OneLineCommand

def work():
    Path("cell.pid").write_text(str(os.getpid()))
    time.sleep(60)

OneLineCommand(name="cell", callback=work).main([])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_cell_ends_when_its_sweep_is_killed(project: Path, write_sweep) -> None:
    write_sweep()
    (project / "cell.py").write_text(CELL)
    python = project / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {project / 'cell.py'}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    killed = subprocess.Popen([sys.executable, "-c", RUN_A_CELL, str(python)], cwd=project)
    note = project / "cell.pid"
    _wait_for(lambda: note.is_file() and note.read_text() != "")
    cell = int(note.read_text())
    try:
        assert _alive(cell)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        _wait_for(lambda: not _alive(cell))
    finally:
        with suppress(ProcessLookupError):
            os.kill(cell, signal.SIGKILL)


def test_a_second_sweep_is_refused_at_once(project: Path, write_sweep) -> None:
    write_sweep()
    locks = Locks()
    locks.acquire(prepare_sweep(project, "grid").data / ".locks/sweep.lock", "grid")
    result = CliRunner().invoke(sweep_command, ["grid"])
    locks.release()
    assert result.exit_code == 2
    assert f"the sweep grid is in use by process {os.getpid()} on" in result.stderr
    assert not list(project.rglob("run.yml"))


def _wait_for(condition, limit_s: float = 60.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Return whether the process runs; one that has ended and was not reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:  # No /proc here: it was not reaped yet, at the most.
        return not Path("/proc/self").exists()
