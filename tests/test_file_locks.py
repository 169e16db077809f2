"""Locks: one holder, who is named; gone with him, however he ends; shared by those who agree."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phoenix_pipeline.errors import BusyError, StorageError
from phoenix_pipeline.file_locks import Locks

HOLD = """
import sys, time
from pathlib import Path
from phoenix_pipeline.file_locks import Locks
Locks().acquire(Path(sys.argv[1]), "x") if sys.argv[2] == "" else Locks().share(
    Path(sys.argv[1]), "x", sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


def hold(path: Path, key: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), key, "--params", "password=hunter2"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_named_and_his_death_releases(tmp_path: Path) -> None:
    path = tmp_path / "data/.locks/fedavg.lock"
    holder = hold(path)
    try:
        with pytest.raises(BusyError) as caught:
            Locks().acquire(path, "fedavg in data")
        line = str(caught.value)
        assert line.startswith(f"fedavg in data is in use by process {holder.pid} on ")
        assert "since 20" in line and ": -c;" in line and "another folder" in line
        assert "hunter2" not in line and "\n" not in line
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    locks = Locks()
    locks.acquire(path, "fedavg in data")
    locks.release()
    locks.acquire(path, "fedavg in data")
    locks.release()


def test_those_with_the_same_key_share(tmp_path: Path) -> None:
    path = tmp_path / "shared.lock"
    holder = hold(path, "same")
    try:
        locks = Locks()
        locks.share(path, "shared", "same")
        with pytest.raises(BusyError, match=f"process {holder.pid} "):
            Locks().share(path, "shared", "other")
        with pytest.raises(BusyError):
            Locks().acquire(path, "shared")
    finally:
        holder.kill()
        holder.wait()
    with pytest.raises(BusyError):
        Locks().share(path, "shared", "other")
    locks.release()
    Locks().share(path, "shared", "other")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    locks = Locks()
    locks.acquire(tmp_path / "a.lock", "a")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, b"forked")
        time.sleep(30)
        os._exit(0)
    try:
        os.read(read_end, 6)
        locks.release()
        Locks().acquire(tmp_path / "a.lock", "a")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be written: .*; allow writing there"):
        Locks().acquire(tmp_path / "file/.locks/a.lock", "a")
