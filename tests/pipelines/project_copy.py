"""A copy of the project to run commands in."""

import shutil
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def copy_project(folder: Path) -> Path:
    """Copy the project to ``folder``, without environments, results and CIFAR-10; return it."""
    skipped = shutil.ignore_patterns(
        ".venv", ".git", "mlruns", "mlflow.db*", "logs", "0[2-8]_*", "cifar10*", "__pycache__"
    )
    shutil.copytree(PROJECT, folder, ignore=skipped)
    shutil.rmtree(folder / "data/sweeps", ignore_errors=True)
    return folder
