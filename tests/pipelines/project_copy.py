"""A copy of the project to run commands in."""

import shutil
from pathlib import Path

PROJECT = Path(__file__).parents[2]

_ANYWHERE = shutil.ignore_patterns(
    ".venv", ".git", "mlruns", "mlflow.db*", "logs", "cifar10*", "__pycache__"
)
_RAW = {"01_raw", ".gitkeep"}


def copy_project(folder: Path) -> Path:
    """Copy the project to ``folder``, without environments, results and CIFAR-10; return it."""
    shutil.copytree(PROJECT, folder, ignore=_skipped)
    return folder


def _skipped(folder: str, names: list[str]) -> set[str]:
    found = _ANYWHERE(folder, names)
    # Results of every environment stay behind: they would stand among those of the test.
    return found | (set(names) - _RAW) if Path(folder) == PROJECT / "data" else found
