"""`kedro run`, killed as a whole and started again by the same command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.pipelines.project_copy import copy_project

COMMAND = "import sys; from phoenix_pipeline.__main__ import main; sys.exit(main())"


def begin(project: Path, data_root: str, arms: str) -> subprocess.Popen[str]:
    options = ["--env", "smoke", "--pipelines", arms]
    params = f"run.arms_at_a_time={len(arms.split(','))},data_root={data_root}"
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *options, "--params", params],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src"), "PHOENIX_TRACKING": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def begin_and_kill(project: Path, arms: str, awaited: Path, more: float) -> None:
    """Kill the run ``more`` seconds after the file or folder ``awaited`` is there."""
    process = begin(project, "data/killed", arms)
    while not awaited.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(more)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def finish(project: Path, data_root: str, arms: str) -> None:
    process = begin(project, data_root, arms)
    said = process.communicate()[1]
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("arms", ["personalization", "personalization,phoenix"])
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path: Path, arms: str) -> None:
    """Two arms are in processes of their own, which end with the one that is killed."""
    project = copy_project(tmp_path / "project")
    finish(project, "data/whole", arms)
    whole, killed = project / "data/whole", project / "data/killed"
    models, drawn = "06_models/personalization", "07_model_output/personalization/samples.parquet"
    clients = killed / "06_models/checkpoints/personalization/clients"
    begin_and_kill(project, arms, clients, 0.0)
    begin_and_kill(project, arms, killed / "06_models/checkpoints/personalization/server", 0.5)
    begin_and_kill(project, arms, killed / models / "rounds.parquet", 0.1)
    finish(project, "data/killed", arms)
    for file in (whole / "06_models").rglob("*.safetensors"):
        if "checkpoints" in file.parts:
            continue
        expected = load_file(file)
        found = load_file(killed / file.relative_to(whole))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    tables = [pd.read_parquet(root / models / "rounds.parquet") for root in (whole, killed)]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))
    assert (whole / drawn).read_bytes() == (killed / drawn).read_bytes()
    scores = "08_reporting/personalization/metrics.json"
    assert (whole / scores).read_bytes() == (killed / scores).read_bytes()
