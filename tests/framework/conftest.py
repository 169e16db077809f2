"""A throw-away Kedro project that uses the real settings with tiny pipelines."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kedro.framework import project as kedro_project
from kedro.framework.project import LOGGING, configure_project, pipelines

FILES = {
    "pyproject.toml": """
[tool.kedro]
package_name = "phoenix_pipeline"
project_name = "Tiny"
kedro_init_version = "1.7.0"
""",
    "conf/base/globals.yml": """
train_images: data/01_raw/train.parquet
test_images: data/01_raw/test.parquet
""",
    "conf/base/mlflow.yml": "{enabled: false, experiment: tiny}\n",
    "conf/base/parameters_run.yml": "run: {seed: 7}\n",
    "conf/base/parameters_federation.yml": """
federation: {num_rounds: 5, local_work: {unit: steps, amount: 10}}
training: {learning_rate: 1.0e-3}
""",
    "conf/base/parameters_arms.yml": """
arms:
  centralized: {federation: {pooled: true, checkpoint_every: 4}}
  fedavg:
  data_sharing: {}
  personalization: {}
  dcgan: {}
""",
    "conf/base/catalog.yml": """
raw_images:
  type: phoenix_pipeline.framework.image_datasets.ImageSplitsDataset
  train: {path: "${runtime_params:train_images, ${globals:train_images}}"}
  test: {path: "${runtime_params:test_images, ${globals:test_images}}"}
summary:
  type: phoenix_pipeline.framework.datasets.WholeFileDataset
  dataset: json.JSONDataset
  filepath: data/summary.json
"{arm}.model":
  type: phoenix_pipeline.framework.datasets.FolderDataset
  filepath: data/06_models/{arm}
  metadata: {mlflow: artifact}
"{arm}.metrics":
  type: phoenix_pipeline.framework.datasets.WholeFileDataset
  dataset: json.JSONDataset
  filepath: data/08_reporting/{arm}/metrics.json
  metadata: {mlflow: metrics}
""",
    "conf/local/.gitkeep": "",
    "src/.gitkeep": "",
    "conf/smoke/parameters.yml": """
federation: {num_rounds: 2}
fedavg: {training: {batch_size: 8}}
""",
    "conf/other/globals.yml": "train_images: data/01_raw/other.parquet\n",
    "data/01_raw/train.parquet": "",
    "data/01_raw/test.parquet": "",
    "data/01_raw/other.parquet": "",
}


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database without runs: MLflow takes a second to make its tables."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the project, with tracking off, and the current folder."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    if kedro_project.PACKAGE_NAME == "phoenix_pipeline":
        LOGGING.set_project_logging("phoenix_pipeline")  # what changes from test to test
    else:
        configure_project("phoenix_pipeline")
    pipelines.configure("tiny_registry")
    handlers = logging.getLogger().handlers[:]
    yield tmp_path
    logging.getLogger().handlers = handlers
    logging.captureWarnings(False)
