"""Change single lines of the mathematics and of the federation; tests should fail for each change.

``python benchmarks/mutants.py`` (``make mutants``) applies every change of ``mutations/*.yml`` in a
copy of the project, runs the tests that are named beside it, and prints the share of changes that
no test saw. The working tree is only read. ``--only client_app`` takes the files whose names hold
that, ``--workers 4`` works on so many at a time, ``--outcomes file.jsonl`` keeps each outcome and
goes on where that file ends.
"""

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[1]
MUTATIONS = Path(__file__).parent / "mutations"
_COPIED = ("src", "tests", "conf", "pyproject.toml")
_LINKED = ("data", "docs", "benchmarks", "scripts", "README.md")
_SECONDS = 300
_BYTES = 8 << 30
_BY_PYTEST_STATUS = {0: "survived", 1: "killed"}
# Of this program's processes; 1 would be any exception's.
_BY_EXIT_CODE = {10: "survived", 11: "killed", 12: "broken"}


@dataclass(frozen=True)
class Mutation:
    """``old``, which occurs once in ``file``, becomes ``new``; ``tests`` should fail then.

    Without ``file`` nothing is changed, and the tests should pass.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def title(self) -> str:
        """File and change in one line; of an unchanged project the tests."""
        if not self.file:
            return f"no change: {' '.join(self.tests)}"
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old} -> {new or 'nothing'}"


def main() -> int:
    """Run the mutations; the status is 1 where one could not be judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="files whose names hold this text")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="changes at a time")
    parser.add_argument("--outcomes", type=Path, help="JSON lines: go on where this file ends")
    asked = parser.parse_args()
    mutations = [m for m in read_mutations() if asked.only in m.file]
    _import_all()
    unchanged = [Mutation("", "", "", tests) for tests in dict.fromkeys(m.tests for m in mutations)]
    known = Outcomes(asked.outcomes)
    for suite, outcome in known.of(unchanged, asked.workers):
        if outcome != "survived":
            sys.stdout.write(f"{' '.join(suite.tests)} fail without any change\n")
            return 1
    outcomes: dict[str, list[Mutation]] = {"killed": [], "survived": [], "broken": []}
    for mutation, outcome in known.of(mutations, asked.workers):
        outcomes[outcome].append(mutation)
        if outcome != "killed":
            sys.stdout.write(f"{outcome}: {mutation.title}\n")
            sys.stdout.flush()
    total, survived = len(mutations), len(outcomes["survived"])
    sys.stdout.write(
        f"{survived} of {total} changes survived ({survived / total:.1%}); "
        f"{len(outcomes['broken'])} could not be judged\n"
    )
    return 1 if outcomes["broken"] else 0


class Outcomes:
    """What became of changes, also those that a file has from a run before.

    An outcome of a file holds while the changed source and the tests are as they were.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
        self._known = {row["key"]: row["outcome"] for row in map(json.loads, lines)}

    def of(self, mutations: list[Mutation], workers: int) -> Iterator[tuple[Mutation, str]]:
        """Yield each of ``mutations`` with its outcome, as soon as it has one."""
        unjudged = []
        for mutation in mutations:
            if _key(mutation) in self._known:
                yield mutation, self._known[_key(mutation)]
            else:
                unjudged.append(mutation)
        for mutation, outcome, seconds in _try_all(unjudged, workers):
            row = {"key": _key(mutation), "title": mutation.title, "outcome": outcome}
            if self._file:
                with self._file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row | {"seconds": round(seconds, 1)}) + "\n")
            yield mutation, outcome


def _key(mutation: Mutation) -> str:
    """Return a digest of the change, of its source (without one: all sources), and of its tests."""
    source = PROJECT / "src/phoenix_pipeline" / mutation.file
    found = [path for name in mutation.tests for path in _python_files(PROJECT / name)]
    text = [mutation.file, mutation.old, mutation.new, *mutation.tests]
    text += [path.read_text(encoding="utf-8") for path in (*_python_files(source), *found)]
    return hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]


def _python_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def read_mutations() -> list[Mutation]:
    """Return the changes of all files in their order."""
    return [
        Mutation(group["file"], old, new, tuple(group["tests"]))
        for path in sorted(MUTATIONS.glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))
        for old, new in group["changes"].items()
    ]


def _import_all() -> None:
    """Import once what every process needs, but nothing of the project."""
    import datasets
    import diffusers
    import flwr.simulation
    import matplotlib.pyplot
    import pandas
    import prdc
    import pytest
    import scipy.stats
    import sklearn.datasets
    import torch

    libraries = (datasets, diffusers, flwr, matplotlib, pandas, prdc, pytest, scipy, sklearn, torch)
    diffusers.UNet2DModel, diffusers.DDPMPipeline  # noqa: B018  (lazy modules)
    torch.set_num_threads(1)
    if "phoenix_pipeline" in sys.modules:
        raise RuntimeError(f"one of {[library.__name__ for library in libraries]} imported it")


def _try_all(mutations: list[Mutation], workers: int) -> Iterator[tuple[Mutation, str, float]]:
    """Yield outcomes and seconds; a process for each, which imports the changed sources anew."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(mutations)), {}
    while waiting or running:
        while waiting and len(running) < workers:
            process = context.Process(target=_exit_with_status, args=(waiting[-1],))
            process.start()
            running[process.sentinel] = (process, waiting.pop(), time.monotonic())
        for sentinel in multiprocessing.connection.wait(list(running)):
            process, mutation, started = running.pop(sentinel)
            process.join()
            outcome = _BY_EXIT_CODE.get(process.exitcode, "broken")
            yield mutation, outcome, time.monotonic() - started


def _exit_with_status(mutation: Mutation) -> None:
    os._exit({outcome: code for code, outcome in _BY_EXIT_CODE.items()}[judge(mutation)])


def judge(mutation: Mutation) -> str:
    """Return what became of ``mutation``: ``killed``, ``survived`` or ``broken``.

    This process imports the changed sources, and should end then.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        _copy_project(Path(folder))
        if mutation.file:
            source = Path(folder) / "src" / "phoenix_pipeline" / mutation.file
            text = source.read_text(encoding="utf-8")
            if text.count(mutation.old) != 1:
                return "broken"
            source.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        status = _run_tests(Path(folder), mutation.tests)
    return _BY_PYTEST_STATUS.get(status, "broken")


def _copy_project(folder: Path) -> None:
    for name in _COPIED:
        if (PROJECT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(PROJECT / name, folder / name)
    for name in _LINKED:
        (folder / name).symlink_to(PROJECT / name)


def _run_tests(folder: Path, tests: tuple[str, ...]) -> int:
    """Return pytest's status for ``tests`` of the copy in ``folder``.

    A test fails that is on when they have taken too much memory or time of this process.
    """
    import pytest

    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {_SECONDS} s")

    sys.dont_write_bytecode = True
    sys.path[:] = [str(folder / "src"), str(folder)] + [p for p in sys.path if "phoenix" not in p]
    resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
    # The clock counts too, for tests that wait for something that never comes.
    signal.signal(signal.SIGPROF, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    signal.alarm(4 * _SECONDS)
    options = ["-x", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with _inside(folder), contextlib.redirect_stdout(io.StringIO()):
        status = int(pytest.main([*options, *tests]))
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    where = sys.modules["phoenix_pipeline"].__file__ or ""
    return status if where.startswith(str(folder)) else -1


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    sys.exit(main())
