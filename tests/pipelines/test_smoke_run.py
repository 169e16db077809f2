"""The product end to end: `kedro run --env smoke` in a copy of the project, by its artifacts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import phoenix_pipeline as phoenix
from phoenix_pipeline.config import deep_merge
from phoenix_pipeline.families.model_folder import weights_digest
from phoenix_pipeline.images import read_samples
from tests.pipelines.project_copy import copy_project
from tests.pipelines.warm_command import run_warm

ARMS = ("centralized", "phoenix", "fedavg", "data_sharing", "personalization", "dcgan")


def environment_of(project: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project / "src"), "COLUMNS": "120"}


def kedro_run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--env", "smoke", *arguments]
    return run_warm(project, options, environment_of(project), "phoenix_pipeline")


def assemble(project: Path, client: int) -> subprocess.CompletedProcess[str]:
    options = ["assemble", str(client), "--env", "smoke", "--to", f"client_{client}"]
    return run_warm(project, options, environment_of(project), "kedro")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("smoke") / "project")
    ended = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--env", "smoke"],
        cwd=folder,
        env=environment_of(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr.endswith("make viz\n"), "something was said at the end of the process"
    return folder


def test_the_partition_holds_every_image_once(project: Path) -> None:
    partition = pd.read_parquet(project / "data/smoke/03_primary/partition.parquet")
    assert sorted(partition["image_index"]) == list(range(240))
    assert partition.groupby("client_id")["label"].nunique().le(3).all()


def test_a_run_of_an_environment_leaves_the_default_results_alone(project: Path) -> None:
    made = [path for path in (project / "data").glob("0[2-8]_*/*") if path.name != ".gitkeep"]
    assert made == []


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_leaves_its_artifacts(project: Path, arm: str) -> None:
    rounds = pd.read_parquet(project / f"data/smoke/06_models/{arm}/rounds.parquet")
    assert rounds["images_trained"].sum() == 480
    assert (rounds["bytes_up"].sum() == 0) == (arm == "centralized")
    samples = pd.read_parquet(project / f"data/smoke/07_model_output/{arm}/samples.parquet")
    assert len(samples) == 64
    assert samples["seed"].is_unique
    owners = {0, 1, 2, 3} if arm == "personalization" else {-1}
    assert set(samples["client_id"]) == owners
    with Image.open(project / f"data/smoke/07_model_output/{arm}/grid.png") as grid:
        assert grid.width >= 6 * 8
    metrics = json.loads((project / f"data/smoke/08_reporting/{arm}/metrics.json").read_text())
    assert metrics["conditions"]["num_samples"] == 64
    assert metrics["scores"]["fid_pixels"] > 0
    assert sum(metrics["class_histogram"]["counts"]) == 64


def test_personal_models_are_assembled_by_a_command(project: Path) -> None:
    from diffusers import DDPMPipeline

    folder = project / "data/smoke/06_models/personalization"
    assert {p.stem for p in (folder / "clients").iterdir()} == {"0", "1", "2", "3"}
    ended = assemble(project, 2)
    assert ended.returncode == 0, ended.stderr
    DDPMPipeline.from_pretrained(project / "client_2", local_files_only=True)
    missing = assemble(project, 9)
    assert missing.returncode == 2
    assert "no model of client 9; it has models of clients 0, 1, 2, 3" in missing.stderr


def test_what_each_client_got_from_the_pool_is_on_disk(project: Path) -> None:
    pool = pd.read_parquet(project / "data/smoke/03_primary/data_sharing/shared_pool.parquet")
    assert pool.groupby("client_id").size().tolist() == [12] * 4  # alpha 0.5 of beta 0.1 of 240
    held = pd.read_parquet(project / "data/smoke/05_model_input/data_sharing/client_images.parquet")
    assert not held.duplicated(["client_id", "image_index"]).any()
    rounds = pd.read_parquet(project / "data/smoke/06_models/personalization/rounds.parquet")
    assert rounds["score"].notna().all()


@pytest.mark.slow
def test_no_pool_is_fedavg_bit_for_bit(project: Path) -> None:
    plain = (project / "data/smoke/07_model_output/fedavg/samples.parquet").read_bytes()
    ended = kedro_run(
        project,
        "--pipelines",
        "data_sharing",
        "--params",
        "data_sharing.shared_pool.beta=0,data_root=data/no_pool",
    )
    assert ended.returncode == 0, ended.stderr
    without = project / "data/no_pool/07_model_output/data_sharing/samples.parquet"
    assert without.read_bytes() == plain


@pytest.mark.slow
def test_only_what_is_missing_is_made_again(project: Path) -> None:
    data = project / "data/smoke"
    samples, model = data / "07_model_output/fedavg/samples.parquet", data / "06_models/fedavg"
    drawn, trained = samples.read_bytes(), model.stat().st_mtime_ns
    samples.unlink()
    ended = kedro_run(project, "--only-missing-outputs")
    assert ended.returncode == 0, ended.stderr
    assert samples.read_bytes() == drawn
    assert model.stat().st_mtime_ns == trained
    assert "fedavg.sample" in ended.stderr
    unasked = ("fedavg.train", "centralized.", "label_judge")
    assert not [word for word in unasked if word in ended.stderr]


def test_the_model_loads_without_this_package(project: Path) -> None:
    code = (
        "import sys; from diffusers import DDPMPipeline;"
        "p = DDPMPipeline.from_pretrained(sys.argv[1], local_files_only=True);"
        "assert 'phoenix_pipeline' not in sys.modules;"
        "print(p.unet.config.sample_size, p.scheduler.config.prediction_type)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(project / "data/smoke/06_models/fedavg")],
        capture_output=True,
        text=True,
        check=True,
        cwd=project.parent,
    )
    assert ended.stdout.split() == ["8", "v_prediction"]


def test_the_comparison_has_a_row_per_arm(project: Path) -> None:
    table = pd.read_csv(project / "data/smoke/08_reporting/comparison.csv")
    assert list(table["arm"][: len(ARMS)]) == list(ARMS)
    report = (project / "data/smoke/08_reporting/comparison.html").read_text(encoding="utf-8")
    assert all(arm in report for arm in ARMS)
    assert "data_sharing, with what each client received" in report
    assert "personalization, checks of the threshold filter" in report
    for arm in ARMS:
        with Image.open(project / f"data/smoke/08_reporting/{arm}/clients.png") as figure:
            assert figure.width > 300


@pytest.mark.slow
def test_an_audit_joins_the_comparison(project: Path) -> None:
    before = pd.read_csv(project / "data/smoke/08_reporting/comparison.csv")
    assert "membership_auc" not in before
    ended = kedro_run(project, "--pipelines", "privacy_audit,comparison")
    assert ended.returncode == 0, ended.stderr
    table = pd.read_csv(project / "data/smoke/08_reporting/comparison.csv").set_index("arm")
    assert table.loc[list(ARMS), "membership_auc"].between(0, 1).all()
    assert table.loc[list(ARMS), "clients_attacked"].tolist() == [1, 4, 4, 4, 4, 4]
    assert table["fid_pixels"].tolist() == before["fid_pixels"].tolist()
    report = (project / "data/smoke/08_reporting/comparison.html").read_text(encoding="utf-8")
    assert "Fidelity against privacy" in report


def test_mlflow_holds_one_run_per_arm(project: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("phoenix")
    assert experiment is not None
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(ARMS) <= set(runs)
    for arm in ARMS:
        assert runs[arm].info.status == "FINISHED"
        assert runs[arm].data.params["federation.num_rounds"] == "2"
        assert runs[arm].data.params["partition.num_clients"] == "4"
        assert "fid_pixels" in runs[arm].data.metrics
        history = client.get_metric_history(runs[arm].info.run_id, "loss")
        assert sorted(point.step for point in history) == [1, 2]
    lasted = {name: run.info.end_time - run.info.start_time for name, run in runs.items()}
    assert 0 < sum(lasted[arm] for arm in ARMS) <= lasted["session"]


def test_the_tracked_model_draws_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    trained = mlflow.MlflowClient().search_runs(
        ["1"], "attributes.run_name = 'personalization'", order_by=["attributes.start_time"]
    )
    model = mlflow.pyfunc.load_model(f"runs:/{trained[0].info.run_id}/model")
    images = model.predict(pd.DataFrame({"count": [8], "seed": [1]}))
    assert images.shape == (8, 1, 8, 8)
    assert len({image.tobytes() for image in images}) == 8


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("partition.classes_per_client=11", "classes_per_client"),
        ("model.unet.attention_resolutions=[5]", "attention_resolutions"),
        ("sampling.num_steps=2000", "num_steps"),
        ("personal_layers.layers=head", "last_up_block"),
    ],
)
def test_impossible_settings_end_in_one_line(project: Path, parameters: str, said: str) -> None:
    ended = kedro_run(project, "--params", parameters)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert said in lines[0]
    assert not re.search(r"\.train$", ended.stderr, re.MULTILINE)


@pytest.mark.parametrize("arm", ["personalization", "data_sharing"])
def test_the_python_interface_gives_the_same_bits(project: Path, arm: str) -> None:
    smoke = yaml.safe_load((project / "conf/smoke/parameters_smoke.yml").read_text())
    groups = ("model", "training", "federation", "sampling")
    settings = {name: smoke[name] for name in groups}
    settings = deep_merge(settings, smoke.get(arm, {}))
    images = phoenix.read_images(project / "data/01_raw/digits", **smoke["images"])
    clients = phoenix.partition(images, **smoke["partition"])
    model = phoenix.train(images, clients, arm, **settings)
    made = phoenix.load(project / f"data/smoke/06_models/{arm}")
    assert weights_digest(model.folder) == weights_digest(made.folder)
    of_command = {"run": {**made.settings["run"], "arms_at_a_time": "auto"}}
    assert model.settings == {**made.settings, **of_command}
    samples = read_samples(project / f"data/smoke/07_model_output/{arm}/samples.parquet")
    assert np.array_equal(model.sample(64), samples.images.images)
    metrics = json.loads((project / f"data/smoke/08_reporting/{arm}/metrics.json").read_text())
    scores = phoenix.score(samples.images.images, images, evaluation=smoke["evaluation"])
    assert scores.scores == metrics["scores"]
