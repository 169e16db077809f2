"""Pairs of runs, interleaved in one process, and the ratio that they give.

A ratio is the speed of this project over the speed of what it is held against: above 1 is faster.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from phoenix_pipeline.hardware import available_cores

Work = Callable[[], object]
T = TypeVar("T")
R = TypeVar("R")

LATEST = Path(__file__).with_name("latest.json")


@dataclass(frozen=True)
class Options:
    """How a benchmark is run.

    ``quick``: seconds instead of minutes, for a look or a test; its figures mean little.
    ``clock``: ``cpu`` counts this process's CPU seconds, which other work on the machine disturbs
    less; it is fair where both sides use one thread.
    """

    quick: bool = False
    device: str = "cpu"
    repetitions: int = 5
    clock: Literal["wall", "cpu"] = "wall"
    cifar10: Path = Path("data/01_raw/cifar10")


@dataclass(frozen=True)
class Row:
    """One line of the table; ``ratio`` None: nothing was compared, and ``compared`` says why."""

    name: str
    compared: str
    ratio: float | None = None
    goal: float | None = None
    spread: float | None = None
    machine: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the row as it stands in ``latest.json``."""
        return asdict(self) | {"date": datetime.now(UTC).date().isoformat()}


def compare(
    name: str,
    compared: str,
    ours: Work,
    theirs: Work,
    options: Options,
    goal: float | None = None,
    warm: bool = False,
    **details: Any,
) -> Row:
    """Run both by turns, the first one alternating, after one unmeasured run of each.

    ``warm``: both have run before.
    """
    if not warm:
        ours()
        theirs()
    seconds: tuple[list[float], list[float]] = ([], [])
    for repetition in range(options.repetitions):
        order = (0, 1) if repetition % 2 == 0 else (1, 0)
        for side in order:
            seconds[side].append(timed((ours, theirs)[side], options))
    return row_of_pairs(name, compared, *seconds, options, goal, **details)


def row_of_pairs(
    name: str,
    compared: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    options: Options,
    goal: float | None = None,
    **details: Any,
) -> Row:
    """Return the row of seconds that were taken in pairs."""
    ratio, spread = ratio_of_pairs(ours, theirs)
    measured = {
        "seconds": statistics.median(ours),
        "seconds_of_the_other": statistics.median(theirs),
        "repetitions": len(ours),
        "clock": options.clock,
        "quick": options.quick,
    }
    return Row(name, compared, ratio, goal, spread, machine(options.device), measured | details)


def ratio_of_pairs(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Return the median of ``theirs / ours`` over the pairs, and their interquartile range."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    if len(ratios) < 2:
        return ratios[0], 0.0
    lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return statistics.median(ratios), upper - lower


def timed(work: Work, options: Options) -> float:
    """Return the seconds of one run; a GPU is waited for on both sides."""
    now = time.process_time if options.clock == "cpu" else time.perf_counter
    _synchronise(options.device)
    start = now()
    work()
    _synchronise(options.device)
    return now() - start


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return b of the least-squares line log(cost) = a + b log(size)."""
    logs = [torch.tensor(values, dtype=torch.float64).log() for values in (sizes, costs)]
    x, y = (values - values.mean() for values in logs)
    return float((x @ y) / (x @ x))


def machine(device: str) -> str:
    """Return what the figures were taken on, with the load that was there before."""
    name = _cpu_name() if device == "cpu" else torch.cuda.get_device_name(device)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{available_cores()} CPU cores ({name}){load}, torch {torch.__version__}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def side_by_side(work: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> list[R]:
    """Return ``work`` of each item, ``workers`` (default: all) at a time with one thread each.

    A single worker keeps the number of threads that torch has.
    """
    workers = workers or len(items)
    threads = torch.get_num_threads()
    if workers == 1:
        return [work(item) for item in items]
    try:
        with ThreadPoolExecutor(workers, "client", torch.set_num_threads, (1,)) as pool:
            return list(pool.map(work, items))
    finally:
        # Threads that start later, and MKL, go by the number that was set last.
        torch.set_num_threads(threads)


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
