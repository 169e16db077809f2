"""Comparisons by the command: of models with their own settings, and of the arms that there are."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.pipelines.project_copy import copy_project
from tests.pipelines.test_smoke_run import kedro_run

TODAY = (
    "partition.scheme=iid,partition.num_clients=5,run.seed=7,"
    "fedavg.training.dp_sgd.enabled=true,fedavg.training.dp_sgd.noise_multiplier=1"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One arm in a fresh folder: it is trained, scored and compared, without the others."""
    folder = copy_project(tmp_path_factory.mktemp("one_arm") / "project")
    ended = kedro_run(folder, "--pipelines", "fedavg,comparison")
    assert ended.returncode == 0, ended.stderr
    left_out = ended.stderr.index(
        "leaves out centralized, phoenix, phoenix_labels, data_sharing, personalization, dcgan"
    )
    assert left_out < ended.stderr.index("decode_images")
    assert "made with other settings" not in ended.stderr
    assert "without centralized there is no share of the gap closed" in ended.stderr
    return folder


def read_report(project: Path) -> str:
    return (project / "data/smoke/08_reporting/comparison.html").read_text(encoding="utf-8")


def test_the_arms_that_are_there_are_compared(project: Path) -> None:
    table = pd.read_csv(project / "data/smoke/08_reporting/comparison.csv")
    assert table["arm"].tolist() == ["fedavg", "real test images"]
    assert not [name for name in table if name.startswith("gap_closed")]
    assert "fedavg reaches a FID" in read_report(project)
    assert not (project / "data/smoke/06_models/centralized").exists()


def test_nothing_to_compare_is_said_before_anything_runs(project: Path) -> None:
    where = ("--params", "data_root=data/empty")
    ended = kedro_run(project, "--pipelines", "federated_training,comparison", *where)
    assert ended.returncode == 2
    assert "nothing to compare" in ended.stderr and "[1/" not in ended.stderr


def test_the_report_tells_what_the_model_was_trained_with(project: Path) -> None:
    metrics = (project / "data/smoke/08_reporting/fedavg/metrics.json").read_bytes()
    ended = kedro_run(project, "--pipelines", "comparison", "--params", TODAY)
    assert ended.returncode == 0, ended.stderr
    for told in (
        "run.seed 0 (now 7)",
        "partition.scheme pathological (now iid)",
        "partition.num_clients 4 (now 5)",
        "training.dp_sgd.enabled false (now true)",
        "fedavg*",
    ):
        assert told in ended.stderr
    report = read_report(project)
    assert "<dt>Seed</dt><dd>0</dd>" in report
    assert "<dt>Clients</dt><dd>4</dd>" in report
    assert "<dt>Partition</dt><dd>pathological, 3 classes per client</dd>" in report
    assert "Example-level differential privacy" not in report
    assert "run.seed 0 (now 7)" in report
    assert (project / "data/smoke/08_reporting/fedavg/metrics.json").read_bytes() == metrics


def test_samples_are_drawn_and_scored_as_the_model_is_whatever_the_command_says(
    project: Path,
) -> None:
    samples = project / "data/smoke/07_model_output/fedavg/samples.parquet"
    before = samples.read_bytes()
    # Another prediction type would read the network's output as what it is not.
    nodes = "fedavg.sample,fedavg.evaluate"
    other = "model.noise.prediction_type=epsilon,model.unet.block_out_channels=[16]"
    ended = kedro_run(project, "--nodes", nodes, "--params", other)
    assert ended.returncode == 0, ended.stderr
    assert samples.read_bytes() == before
    fewer = kedro_run(project, "--nodes", "fedavg.sample", "--params", "sampling.num_steps=3")
    assert fewer.returncode == 0, fewer.stderr
    scored = kedro_run(project, "--nodes", "fedavg.evaluate", "--params", "run.seed=5")
    assert scored.returncode == 0, scored.stderr
    metrics = json.loads((project / "data/smoke/08_reporting/fedavg/metrics.json").read_text())
    assert (metrics["conditions"]["num_steps"], metrics["conditions"]["seed"]) == (3, 0)


def test_real_images_of_another_evaluation_are_left_out(project: Path) -> None:
    other = ("--params", "evaluation.reference_split=test")
    made = kedro_run(
        project, "--nodes", "references.prepare_references,references.score_real_images", *other
    )
    assert made.returncode == 0, made.stderr
    ended = kedro_run(project, "--pipelines", "comparison", *other)
    assert ended.returncode == 0, ended.stderr
    assert "scores of real images are left out" in ended.stderr
    table = pd.read_csv(project / "data/smoke/08_reporting/comparison.csv")
    assert table["arm"].tolist() == ["fedavg"]


def test_a_model_of_later_training_leaves_the_scores_behind_and_the_report_says_so(
    project: Path,
) -> None:
    other = ("--params", "training.batch_size=8")
    made = kedro_run(project, "--nodes", "fedavg.train,fedavg.describe_model", *other)
    assert made.returncode == 0, made.stderr
    trained = kedro_run(project, "--pipelines", "comparison", *other)
    assert trained.returncode == 0, trained.stderr
    assert "samples and scores of fedavg are of an earlier model" in trained.stderr
    assert "samples and scores of fedavg are of an earlier model" in read_report(project)
