"""Signals end a command like Ctrl-C does; a child ends with the process that started it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from phoenix_pipeline.framework.stop_signals import LIFELINE, Stopped, lifeline, stopped_like_ctrl_c

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

CONF = Path(__file__).parents[2] / "conf"

WAIT = """
import sys, time
import click
from phoenix_pipeline.framework.command import OneLineCommand

def wait():
    print("waiting", flush=True)
    time.sleep(60)

OneLineCommand(name="wait", callback=wait).main([])
"""

PARENT = """
import os, subprocess, sys, time
from phoenix_pipeline.framework.stop_signals import lifeline
with lifeline() as line:
    child = subprocess.Popen(
        [sys.executable, "-c", sys.argv[1]],
        env=os.environ | line, pass_fds=[int(d) for d in line.values()],
    )
    print(child.pid, flush=True)
    child.wait()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_in_one_line(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    (tmp_path / "conf").mkdir()
    shutil.copy(CONF / "logging.yml", tmp_path / "conf")
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said == (
        f"Error: ended by {name}; start the same command again to go on from the last checkpoint\n"
    )


def test_nohup_and_the_handlers_before_stay() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stopped_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Stopped), stopped_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, WAIT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert parent.stdout.readline() == "waiting\n"
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        until = time.monotonic() + 30
        while _alive(child) and time.monotonic() < until:
            time.sleep(0.05)
        assert not _alive(child)
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_lifeline_holds_as_long_as_its_parent() -> None:
    with lifeline() as line:
        assert line is not None
        descriptor = int(line[LIFELINE])
        assert not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def _alive(pid: int) -> bool:
    """Return whether the process runs; one that has ended and was not reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return not Path("/proc/self").exists()
        return False
    return state != "Z"
