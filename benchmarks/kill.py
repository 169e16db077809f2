"""Kill -9 at many instants, restart, compare.

``python benchmarks/kill.py --kills 50`` prints how many kills struck which phase.
Three small arms go through the stages' own functions: federated training (Adam's moments kept, EMA;
personal layers, warm-up, threshold filter; compression with error feedback both ways), sampling, a
score, all written as the catalog writes them. Each process is forked from this one, which has
imported everything. Every other kill comes at a random instant, the others at a random step (a file
operation, or the start of a phase such as the aggregation of a reply), where an instant would
rarely fall.
Killed processes are started again until one ends; its files must be those of an undisturbed run.
"""

import argparse
import logging
import mmap
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from kill_program import ARMS, CLOCKS, PHASES, import_all, run_arms, watch_phases
from safetensors.torch import load_file

_FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR


class Shared:
    """What a child leaves behind however it ends: steps by phase, and what it was doing."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * len(PHASES) + 2)

    def clear(self) -> None:
        """Begin anew, for the next child."""
        self._memory[:] = bytes(len(self._memory))

    def count(self, phase: int) -> int:
        """Count one more step of ``phase``; return how many there were."""
        steps = self.steps[phase] + 1
        self._memory[2 * phase : 2 * phase + 2] = steps.to_bytes(2, "little")
        return steps

    @property
    def steps(self) -> list[int]:
        """How many steps there were by phase; file operations count as the first."""
        pairs = (self._memory[2 * i : 2 * i + 2] for i in range(len(PHASES)))
        return [int.from_bytes(pair, "little") for pair in pairs]

    @property
    def phase(self) -> str:
        """What the child was doing, in words: its main thread, or else its clients."""
        return PHASES[self._memory[-2] or self._memory[-1]]

    def enter(self, phase: int) -> int:
        """Note what this thread does now; return what it did before."""
        place = len(self._memory) - 1 - (threading.current_thread() is threading.main_thread())
        before, self._memory[place] = self._memory[place], phase
        return before


def start(
    folder: Path, shared: Shared, arms: Sequence[str], kill_at: tuple[int, int] | None = None
) -> int:
    """Fork a process that runs the arms in ``folder``; it kills itself at step n of a phase."""
    shared.clear()
    child = os.fork()
    if child:
        return child
    status = 1

    def step(phase: int) -> None:
        if (phase, shared.count(phase)) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def enter(phase: int) -> int:
        before = shared.enter(phase)
        step(phase)
        return before

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS or (event == "open" and arguments[2] & _WRITING):
            step(0)

    try:
        watch_phases(enter)
        sys.addaudithook(hook)
        run_arms(folder, arms)
        status = 0
    except BaseException as error:
        sys.stderr.write(f"the child failed: {type(error).__name__}: {error}\n")
    finally:
        os._exit(status)


def ended(child: int) -> bool:
    """Wait for ``child``; return whether it reached its end, False if it was killed."""
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise RuntimeError("a restarted run failed instead of going on")
    return True


def outcome(folder: Path) -> dict[str, Any]:
    """Return everything that must be equal: bytes of weights and samples, and the tables."""
    files = {str(f.relative_to(folder)): f for f in sorted(folder.rglob("*")) if f.is_file()}
    kept: dict[str, Any] = {}
    for name, file in files.items():
        if name.startswith("checkpoints/") or ".partial" in name:
            continue
        if file.name == "rounds.parquet":
            table = pd.read_parquet(file).drop(columns=list(CLOCKS))
            kept[name] = repr(table.to_dict("list"))
        elif file.suffix == ".safetensors":
            # The order of a header's entries varies from process to process.
            kept[name] = {n: (t.shape, t.numpy().tobytes()) for n, t in load_file(file).items()}
        elif file.name == "README.md":
            # A card says when it was made, as phoenix.json does.
            lines = file.read_text(encoding="utf-8").splitlines()
            kept[name] = [line for line in lines if not line.startswith("| made by |")]
        elif file.name != "phoenix.json":
            kept[name] = file.read_bytes()
    return kept


def survive(kills: int, seed: int, root: Path, arms: Sequence[str]) -> Counter[str]:
    """Spread ``kills`` over as many runs as it takes; return how many struck which phase.

    Raises RuntimeError for a run that does not end as the undisturbed one.
    """
    import_all()
    shared, generator, struck = Shared(), random.Random(seed), Counter[str]()
    began = time.monotonic()
    if not ended(start(root / "whole", shared, arms)):
        raise RuntimeError("the undisturbed run was killed")
    seconds, steps = time.monotonic() - began, shared.steps
    expected, runs = outcome(root / "whole"), 0
    while struck.total() < kills:
        runs += 1
        folder = root / f"run-{runs}"
        for _ in range(min(generator.randint(1, 5), kills - struck.total())):
            by_step = generator.random() < 0.5
            phase = generator.randrange(len(PHASES))
            aim = (phase, generator.randint(1, steps[phase])) if by_step else None
            child = start(folder, shared, arms, aim)
            if not by_step:
                time.sleep(generator.uniform(0.0, seconds))
                os.kill(child, signal.SIGKILL)
            if ended(child):
                break
            struck[shared.phase] += 1
        else:
            ended(start(folder, shared, arms))
        found = outcome(folder)
        names = expected.keys() | found.keys()
        if differing := [n for n in names if expected.get(n) != found.get(n)]:
            raise RuntimeError(f"run {runs} with seed {seed} differs in {sorted(differing)}")
    print(
        f"{struck.total()} kills in {runs} runs, each ended like the undisturbed one "
        f"({seconds:.1f} s, {sum(steps)} steps, {len(expected)} files compared)"
    )
    return struck


def main() -> None:
    """Kill as often as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arm", choices=ARMS, help="this one alone")
    asked = parser.parse_args()
    arms = [asked.arm] if asked.arm else ARMS
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        struck = survive(asked.kills, asked.seed, Path(folder), arms)
    for phase, count in struck.most_common():
        print(f"{count:4d}  {phase}")


if __name__ == "__main__":
    main()
