"""Change single lines of the mathematics and of the federation; tests should fail for each change.

``python benchmarks/mutants.py`` (``make mutants``) applies every change of ``mutations/*.yml`` in a
copy of the project, runs the tests that are named beside it, and prints the share of changes that
no test saw. The working tree is only read. ``--only client_app`` takes the files whose names hold
that, ``--workers 4`` works on so many at a time.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
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
_PASSED, _FAILED = 0, 1


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
        """File and change in one line."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old} -> {new or 'nothing'}"


def main() -> int:
    """Run the mutations; the status is 1 where one could not be judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="files whose names hold this text")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="changes at a time")
    asked = parser.parse_args()
    mutations = [m for m in read_mutations() if asked.only in m.file]
    _import_all()
    suites = dict.fromkeys(m.tests for m in mutations)
    unchanged = [Mutation("", "", "", tests) for tests in suites]
    outcomes: dict[str, list[Mutation]] = {"killed": [], "survived": [], "broken": []}
    started = time.monotonic()
    # A process for each: it imports the changed sources, and none from before.
    with multiprocessing.get_context("fork").Pool(asked.workers, maxtasksperchild=1) as pool:
        for tests, outcome in pool.imap(_try, unchanged):
            if outcome != "survived":
                sys.stdout.write(f"{' '.join(tests.tests)} fail without any change\n")
                return 1
        for mutation, outcome in pool.imap(_try, mutations):
            outcomes[outcome].append(mutation)
            if outcome != "killed":
                sys.stdout.write(f"{outcome}: {mutation.title}\n")
                sys.stdout.flush()
    total, survived = len(mutations), len(outcomes["survived"])
    sys.stdout.write(
        f"{survived} of {total} changes survived ({survived / total:.1%}); "
        f"{len(outcomes['broken'])} could not be judged; {time.monotonic() - started:.0f} s\n"
    )
    return 1 if outcomes["broken"] else 0


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


def _try(mutation: Mutation) -> tuple[Mutation, str]:
    """Return what became of ``mutation``: ``killed``, ``survived`` or ``broken``."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        _copy_project(Path(folder))
        if mutation.file:
            source = Path(folder) / "src" / "phoenix_pipeline" / mutation.file
            text = source.read_text(encoding="utf-8")
            if text.count(mutation.old) != 1:
                return mutation, "broken"
            source.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        status = _run_tests(Path(folder), mutation.tests)
    return mutation, {_PASSED: "survived", _FAILED: "killed"}.get(status, "broken")


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
    """Return pytest's status for ``tests`` of the copy in ``folder``; 1 where they hang."""
    import pytest

    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {_SECONDS} s")

    sys.dont_write_bytecode = True
    sys.path[:] = [str(folder / "src"), str(folder)] + [p for p in sys.path if "phoenix" not in p]
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    options = ["-x", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with _inside(folder), contextlib.redirect_stdout(io.StringIO()):
        status = int(pytest.main([*options, *tests]))
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
