"""Importing the package changes nothing of its host; commands switch the network off."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phoenix_pipeline.offline import VARIABLES

SOURCES = Path(__file__).parents[1] / "src"


def changed_by(statement: str) -> dict[str, str]:
    """Return what a fresh interpreter's environment has after ``statement`` and had not before."""
    code = (
        "import json, os; before = dict(os.environ)\n"
        f"{statement}\n"
        "print(json.dumps({k: v for k, v in os.environ.items() if before.get(k) != v}))"
    )
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def test_an_import_leaves_the_environment_alone() -> None:
    library = "config, seeding, errors, checkpoints, images, partitioning, families, metrics"
    assert changed_by(f"import phoenix_pipeline; from phoenix_pipeline import {library}") == {}


@pytest.mark.parametrize("module", ["cli", "settings"])
def test_commands_and_sessions_stay_offline(module: str) -> None:
    start = "from kedro.framework.project import configure_project as c; c('phoenix_pipeline')"
    changed = changed_by(f"{start}; import phoenix_pipeline.{module}")
    assert {name: changed.get(name) for name in VARIABLES} == VARIABLES


def test_what_a_user_set_stays() -> None:
    changed = changed_by(
        "import os; os.environ['HF_HUB_OFFLINE'] = '0'\n"
        "from phoenix_pipeline.offline import stay_offline; stay_offline()"
    )
    assert changed["HF_HUB_OFFLINE"] == "0"
    assert changed["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_types_are_declared() -> None:
    assert (SOURCES / "phoenix_pipeline/py.typed").is_file()
