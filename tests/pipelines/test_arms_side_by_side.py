"""Two arms at work at once leave the models and records of one after another."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.pipelines.project_copy import copy_project
from tests.pipelines.test_smoke_run import kedro_run

# Alone an arm has more workers and threads, and sums in another order.
SAME_SUMS = "federation.workers=1,federation.threads_per_client=1"
ARMS = ("personalization", "fedavg")


def train(project: Path, at_a_time: int) -> Path:
    root = project / f"data/{at_a_time}"
    ended = kedro_run(
        project,
        "--pipelines",
        ",".join(ARMS),
        "--to-nodes",
        ",".join(f"{arm}.train" for arm in ARMS),
        "--params",
        f"data_root={root},run.arms_at_a_time={at_a_time},{SAME_SUMS}",
    )
    assert ended.returncode == 0, ended.stderr
    for arm in ARMS:
        # Who says it is said where several say it.
        assert (f"INFO {arm}: round 2/2: loss" in ended.stderr) == (at_a_time > 1)
    return root


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    project = copy_project(tmp_path_factory.mktemp("arms") / "project")
    return train(project, 1), train(project, 2)


@pytest.mark.parametrize("arm", ARMS)
def test_both_leave_the_same(roots: tuple[Path, Path], arm: str) -> None:
    one, two = (root / "06_models" / arm for root in roots)
    weights = [file.relative_to(one) for file in one.rglob("*.safetensors")]
    assert len(weights) == (5 if arm == "personalization" else 1)
    for file in weights:
        expected, found = load_file(one / file), load_file(two / file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
    tables = [pd.read_parquet(folder / "rounds.parquet") for folder in (one, two)]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))


def test_each_arm_has_its_rounds_in_mlflow(roots: tuple[Path, Path]) -> None:
    client = MlflowClient(f"sqlite:///{roots[0].parents[1] / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "arm" in run.data.tags]
    losses = {
        (run.data.tags["arm"], run.info.run_id): [
            (point.step, point.value)
            for point in client.get_metric_history(run.info.run_id, "loss")
        ]
        for run in runs
    }
    assert len(losses) == 4
    for arm in ARMS:
        first, second = (points for (of, _), points in losses.items() if of == arm)
        assert first == second and [step for step, _ in first] == [1, 2]
