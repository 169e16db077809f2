"""The throw-away project of the framework tests, with a sweep, and a run that only writes files."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from phoenix_pipeline.framework.sweeps.cells import Cell
from phoenix_pipeline.framework.sweeps.plan import Sweep
from tests.written import arm_metrics

sys.path.insert(0, str(Path(__file__).parents[1]))

GRID = {
    "pipelines": ["fedavg", "centralized"],
    "parameters": {"sampling.num_images": 32},
    "grid": {"training.learning_rate": [0.1, 0.01], "run.seed": [0, 1]},
    "metrics": ["fid_pixels"],
    "heat_map": {"x": "training.learning_rate", "y": "arm"},
}
Write = Callable[..., None]


@pytest.fixture
def write_sweep(project: Path) -> Write:
    """Write ``conf/sweeps/grid.yml``: the grid above, with other values for single keys."""

    def write(**changes: object) -> None:
        path = project / "conf/sweeps/grid.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({**GRID, **changes}, sort_keys=False))

    return write


class Arithmetic:
    """Stands for training: an arm's score is its learning rate x 100 + its seed.

    ``broken`` names arms and cells that fail; ``calls`` lists what ran.
    """

    def __init__(self, sweep: Sweep, broken: tuple[tuple[str, str], ...] = ()) -> None:
        self.sweep, self.broken = sweep, broken
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, cell: Cell, arms: tuple[str, ...]) -> str | None:
        self.calls.append((cell.name, arms))
        if any((cell.name, arm) in self.broken for arm in arms):
            return "loss is nan"
        for arm in arms:
            self._write(cell, arm)
        return None

    def _write(self, cell: Cell, arm: str) -> None:
        folder = self.sweep.folder(cell)
        score = cell.parameters["training"]["learning_rate"] * 100
        score += cell.parameters["run"]["seed"]
        file = folder.metrics_file(arm)
        file.parent.mkdir(parents=True, exist_ok=True)
        histogram = {
            "class_names": ["a", "b"],
            "counts": [3, 1],
            "shares": [0.75, 0.25],
            "training_shares": [0.5, 0.5],
            "classifier": "trained here",
            "classifier_test_accuracy": 0.9,
            "classifier_majority_share": 0.5,
        }
        metrics = arm_metrics({"fid_pixels": score}, class_histogram=histogram)
        file.write_text(json.dumps(metrics))
        rounds = folder.path / f"06_models/{arm}/rounds.parquet"
        rounds.parent.mkdir(parents=True, exist_ok=True)
        columns = ["round", "client_id", "images_trained", "bytes_up", "bytes_down", "seconds"]
        pd.DataFrame([[1, 0, 10, 5, 6, 0.5]], columns=columns).to_parquet(rounds)
        checkpoint = folder.path / f"06_models/checkpoints/{arm}/round-000001.safetensors"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text("state")
