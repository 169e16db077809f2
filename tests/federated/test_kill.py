"""Runs that are killed again and again end like undisturbed ones; 50 kills: see the harness."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_end_with_the_same_files(tmp_path: Path) -> None:
    # A process of its own: pytest's has threads, which a fork would not survive.
    ended = subprocess.run(
        [sys.executable, "benchmarks/kill.py", "--kills", "6", "--seed", "1"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 kills in" in ended.stdout
