"""Child processes with a time limit each: one that fails or hangs stops no other."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.gpu_check.report import Findings, PartResult

NO_TIME = "no time was left"
# Less cannot even import torch.
_LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class Part:
    """``module`` is run with ``arguments``; it writes findings to a file of its own."""

    name: str
    module: str
    arguments: tuple[str, ...]
    limit_s: float


def run_parts(
    parts: Sequence[Part],
    folder: Path,
    side_by_side: int,
    deadline: float,
    ended: Callable[[str, PartResult], None],
) -> None:
    """Run all ``parts``, some at a time, and call ``ended`` with each result as it comes.

    Args:
        parts: in the order in which they begin.
        folder: for a log and the findings of each part.
        side_by_side: how many run at a time.
        deadline: on the clock of :func:`time.monotonic`; nothing runs beyond it.
        ended: called in this thread.
    """
    # What a killed child leaves among the temporary files goes as well.
    with (
        tempfile.TemporaryDirectory(prefix="gpu_check_") as temporary,
        ThreadPoolExecutor(side_by_side) as pool,
    ):
        run = partial(_run_part, folder=folder, temporary=temporary, deadline=deadline)
        started = {pool.submit(run, part): part.name for part in parts}
        for future in as_completed(started):
            ended(started[future], future.result())


def _run_part(part: Part, folder: Path, temporary: str, deadline: float) -> PartResult:
    began = time.monotonic()
    limit = min(part.limit_s, deadline - began)
    if limit < _LEAST_SECONDS:
        return PartResult("skipped", NO_TIME)
    file = folder / f"{part.name}.findings.jsonl"
    log = folder / f"{part.name}.log"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", part.module, *part.arguments]
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [*command, "--findings", str(file)],
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": temporary},
            # A group of its own, so that its own children end with it.
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            reason = f"did not end within {limit:.0f} s"
        else:
            reason = last_line(log) if status else ""
    found = Findings(file).read()
    return PartResult("failed" if status else "ok", reason, time.monotonic() - began, found)


def last_line(log: Path) -> str:
    """Return the last line that ``log`` has, which is the error's."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    spoken = [line.strip() for line in lines if line.strip()]
    return spoken[-1].removeprefix("RuntimeError: ") if spoken else "it said nothing"
