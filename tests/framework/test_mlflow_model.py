"""A trained arm in MLflow: loads as a pyfunc model and draws the images of its seed."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from phoenix_pipeline.arms.sampling import draw_images
from phoenix_pipeline.config import ModelConfig, SamplingConfig, UNetConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families.model_folder import write_models
from phoenix_pipeline.framework.mlflow_model import ImageModel
from phoenix_pipeline.framework.mlflow_runs import SessionRuns
from phoenix_pipeline.framework.mlflow_store import TrackingConfig, tracking_uri
from phoenix_pipeline.pipelines.sampling.export import export_samples
from tests.written import network_settings, training_record

MODEL = ModelConfig(
    unet=UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
)
METADATA = training_record(network_settings(MODEL))
SAMPLING = SamplingConfig(num_steps=3, batch_size=2, sampler="ddim")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "fedavg"
    network = build_unet(MODEL.unet, 1, 8, 9)
    write_models(folder, network.state_dict(), [], network, METADATA)
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionRuns:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    uri = tracking_uri(TrackingConfig(), tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return SessionRuns.start(TrackingConfig(), tmp_path, {})


def test_a_logged_model_loads_and_draws(trained: Path, runs: SessionRuns, tmp_path: Path) -> None:
    runs.log_model("fedavg", trained, "model", SAMPLING.model_dump(mode="json"))
    model = mlflow.pyfunc.load_model(f"runs:/{runs.run_id('fedavg')}/model")
    images = model.predict(pd.DataFrame({"count": [3, 1], "seed": [5, 6]}))
    assert (images.shape, images.dtype) == ((4, 1, 8, 8), np.uint8)
    np.testing.assert_array_equal(images[:3], draw_images(trained, 3, SAMPLING, 5, role="export"))
    np.testing.assert_array_equal(images[3:], draw_images(trained, 1, SAMPLING, 6, role="export"))
    assert [column.name for column in model.metadata.signature.inputs] == ["count", "seed"]
    assert model.metadata.signature.outputs.inputs[0].shape == (-1, 1, 8, 8)
    with pytest.raises(mlflow.exceptions.MlflowException, match="seed"):
        model.predict(pd.DataFrame({"count": [3]}))


def test_it_draws_what_export_samples_writes(trained: Path, tmp_path: Path) -> None:
    from phoenix_pipeline.config import ImagesConfig
    from phoenix_pipeline.images import read_images

    export_samples(trained, tmp_path / "new", 3, 5, SAMPLING)
    written = read_images(tmp_path / "new", ImagesConfig()).images
    np.testing.assert_array_equal(written, draw_images(trained, 3, SAMPLING, 5, role="export"))


def test_a_registered_model_has_versions_that_load(trained: Path, runs: SessionRuns) -> None:
    runs.log_model("fedavg", trained, "model", SAMPLING.model_dump(mode="json"))
    for _ in range(2):
        runs.register_model("fedavg", "model", "phoenix-fedavg")
    versions = MlflowClient(mlflow.get_tracking_uri()).search_model_versions(
        "name='phoenix-fedavg'"
    )
    assert sorted(int(version.version) for version in versions) == [1, 2]
    model = mlflow.pyfunc.load_model("models:/phoenix-fedavg/2")
    assert model.predict(pd.DataFrame({"count": [1], "seed": [0]})).shape == (1, 1, 8, 8)


def test_nothing_is_pickled(trained: Path, runs: SessionRuns, tmp_path: Path) -> None:
    runs.log_model("fedavg", trained, "model", {})
    written = [path.suffix for path in (tmp_path / "mlruns").rglob("model/**/*") if path.is_file()]
    assert set(written) <= {".safetensors", ".json", ""}


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (1, -1)])
def test_impossible_rows_are_refused(trained: Path, count: int, seed: int) -> None:
    with pytest.raises(SettingsError, match=f"got count {count} and seed {seed}"):
        ImageModel(trained, SAMPLING).predict(pd.DataFrame({"count": [count], "seed": [seed]}))


def test_a_conditional_model_draws_the_class_of_a_row(runs: SessionRuns, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        **METADATA["settings"],
        "model": MODEL.model_copy(update={"conditioning": "labels"}).model_dump(mode="json"),
        "class_names": ["cat", "dog"],
        "personal_layers": [],
    }
    counts = {"class_counts": {"0": [20, 10]}}
    network = build_unet(MODEL.unet, 1, 8, 9, num_classes=2)
    folder = tmp_path / "phoenix"
    write_models(folder, {}, [], network, {**METADATA, "settings": settings, **counts})
    runs.log_model("phoenix", folder, "model", SAMPLING.model_dump(mode="json"))
    model = mlflow.pyfunc.load_model(f"runs:/{runs.run_id('phoenix')}/model")
    dogs = model.predict(pd.DataFrame({"count": [2], "seed": [5], "label": [1]}))
    np.testing.assert_array_equal(
        dogs, draw_images(folder, 2, SAMPLING, 5, labels=[1, 1], role="export")
    )
    mixed = model.predict(pd.DataFrame({"count": [2], "seed": [5]}))
    np.testing.assert_array_equal(mixed, draw_images(folder, 2, SAMPLING, 5, role="export"))
