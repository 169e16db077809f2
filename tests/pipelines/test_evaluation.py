"""The nodes on real digits: what is kept, made again or refused, and whose samples count."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from phoenix_pipeline.arms.references import (
    prepare_references,
    score_floor,
    train_label_judge,
)
from phoenix_pipeline.config import ArmSettings, EvaluationConfig, RunConfig, SamplingConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.images import ImageSet, SampleWriter
from phoenix_pipeline.pipelines.evaluation.nodes import evaluate

CONFIG = EvaluationConfig.model_validate(
    {
        "extractors": ["fid_pixels", "fid_classifier"],
        "kid_subsets": 2,
        "kid_subset_size": 32,
        "classifier": {"channels": 4, "epochs": 2, "batch_size": 32},
    }
)
RUN = RunConfig(device="cpu")
ARM = ArmSettings()
# Two clients; the rows are those of the training images below.
PARTITION = pd.DataFrame({"client_id": np.arange(600) // 300, "image_index": np.arange(600)})


def digits() -> tuple[ImageSet, ImageSet]:
    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)[:, None]
    everything = ImageSet(images, data.target.astype(np.int64), tuple("0123456789"))
    return everything.subset(slice(0, 600)), everything.subset(slice(600, 800))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the label judge and of the references."""
    folder = tmp_path_factory.mktemp("shared")
    judge, references = folder / "judge", folder / "references"
    train_label_judge(*digits(), CONFIG, RUN)(judge)
    prepare_references(*digits(), judge, CONFIG, RUN)(references)
    return judge, references


def score(
    folder: Path,
    made: tuple[Path, Path],
    samples: list[tuple[int, np.ndarray]],
    images: tuple[ImageSet, ImageSet] | None = None,
    family: str = "diffusion",
    config: EvaluationConfig = CONFIG,
    labels: np.ndarray | None = None,
    arm: ArmSettings = ARM,
) -> dict[str, Any]:
    drawn = {
        "weights_digest": "0123",
        "weights": "raw",
        "family": family,
        "sampling": SamplingConfig(num_steps=7).model_dump(mode="json"),
        "seed": 3,
    }
    with SampleWriter(folder / "samples.parquet", drawn) as writer:
        for client_id, batch in samples:
            asked = None if labels is None else labels[: len(batch)]
            writer.write(batch, client_id, range(len(batch)), asked)
    metrics, classes = evaluate(
        folder / "samples.parquet", *(images or digits()), *made, PARTITION, arm, config, RUN
    )
    assert len(classes) <= sum(len(batch) for _, batch in samples)
    assert ("asked" in classes) == (labels is not None)
    return metrics


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_fits_is_kept_for_every_seed_of_the_run(made: tuple[Path, Path]) -> None:
    judge, references = made
    before = [{p.name: p.stat().st_ino for p in folder.iterdir()} for folder in made]
    other_seed = RUN.model_copy(update={"seed": 5})
    train_label_judge(*digits(), CONFIG, other_seed)(judge)
    prepare_references(*digits(), judge, CONFIG, other_seed)(references)
    assert [{p.name: p.stat().st_ino for p in folder.iterdir()} for folder in made] == before


def test_changed_images_are_refused_until_judge_and_references_are_made_again(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = digits()
    changed = (train.subset(slice(0, 500)), test)
    samples = [(-1, test.images[:80])]
    with pytest.raises(CheckpointError, match=r"the judge in .* was made for other images"):
        score(tmp_path, made, samples, changed)
    with pytest.raises(CheckpointError, match="was made for other images"):
        prepare_references(*changed, made[0], CONFIG, RUN)
    judge = tmp_path / "judge"
    train_label_judge(*changed, CONFIG, RUN)(judge)
    with pytest.raises(CheckpointError, match="train_data: got"):
        score(tmp_path, (judge, made[1]), samples, changed)
    references = tmp_path / "references"
    prepare_references(*changed, judge, CONFIG, RUN)(references)
    assert score(tmp_path, (judge, references), samples, changed)["scores"]["fid_pixels"] > 0


def test_unlabelled_images_leave_no_old_judge(tmp_path: Path, made: tuple[Path, Path]) -> None:
    judge = tmp_path / "judge"
    judge.mkdir()
    (judge / "label_judge.safetensors").write_bytes(contents(made[0])["label_judge.safetensors"])
    plain = tuple(ImageSet(images.images) for images in digits())
    train_label_judge(*plain, CONFIG, RUN)(judge)
    assert contents(judge) == {}


def test_images_of_one_class_are_scored_without_a_judge(tmp_path: Path) -> None:
    train, test = (ImageSet(i.images, np.zeros(len(i.images), int), ("7",)) for i in digits())
    judge, references = tmp_path / "judge", tmp_path / "references"
    train_label_judge(train, test, CONFIG, RUN)(judge)
    prepare_references(train, test, judge, CONFIG, RUN)(references)
    metrics = score(tmp_path, (judge, references), [(-1, test.images)], (train, test))
    assert metrics["scores"]["fid_pixels"] > 0
    assert "fewer than two classes" in metrics["skipped"]["fid_classifier"]


def test_a_judge_from_a_file_is_measured_and_named_beside_the_histogram(tmp_path: Path) -> None:
    train, test = digits()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    means = np.stack([train.images[train.labels == c].mean(axis=0) / 255 for c in range(10)])
    with torch.no_grad():  # nearest class mean
        network[1].weight.copy_(torch.from_numpy(2 * means.reshape(10, 64)))
        network[1].bias.copy_(torch.from_numpy(-(means**2).sum(axis=(1, 2, 3))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), tmp_path / "own.pt")
    logits = network(torch.from_numpy(test.images).float() / 255)
    accuracy = (logits.argmax(1).numpy() == test.labels).mean()
    asked = EvaluationConfig.model_validate(
        {**CONFIG.model_dump(), "classifier": {"file": {"path": str(tmp_path / "own.pt")}}}
    )
    judge, references = tmp_path / "judge", tmp_path / "references"
    train_label_judge(train, test, asked, RUN)(judge)
    assert set(contents(judge)) == {"own_judge.json"}
    prepare_references(train, test, judge, asked, RUN)(references)
    metrics = score(tmp_path, (judge, references), [(-1, test.images)], config=asked)
    histogram = metrics["class_histogram"]
    assert histogram["classifier"] == "own.pt"
    assert histogram["classifier_test_accuracy"] == pytest.approx(accuracy)
    assert histogram["counts"] == torch.bincount(logits.argmax(1), minlength=10).tolist()
    assert "from a file" in metrics["skipped"]["fid_classifier"]
    (tmp_path / "own.pt").unlink()
    with pytest.raises(SettingsError, match="not a file"):
        score(tmp_path, (judge, references), [(-1, test.images)], config=asked)


def test_the_floor_is_what_unseen_real_images_get(made: tuple[Path, Path]) -> None:
    floor = score_floor(*digits(), *made, CONFIG, RUN)
    assert floor["num_samples"] == 200
    assert 0 < floor["scores"]["fid_pixels"] < 1
    train, _ = digits()
    assert floor["conditions"]["train_images"] == train.fingerprint()[:16]
    assert floor["conditions"]["evaluation"] == CONFIG.model_dump(mode="json")


def test_a_global_model_is_scored_over_all_rows(made: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = score(tmp_path, made, [(-1, digits()[1].images)])
    conditions = metrics["conditions"]
    assert (conditions["num_samples"], conditions["weights"]) == (200, "raw")
    assert "num_clients" not in conditions
    assert metrics["clients"] == {}
    assert not [name for name in metrics["scores"] if name.startswith("final_average.")]


def test_clients_models_are_the_main_scores_and_their_average_has_a_prefix(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = digits()
    zeros, noise = train.images[train.labels == 0][:50], np.full_like(test.images, 255)
    samples = [(0, test.images[:100]), (7, zeros), (-1, noise)]
    metrics = score(tmp_path, made, samples)
    alone = score(tmp_path, made, samples[:2])
    averaged = score(tmp_path, made, samples[2:])
    own = {k: v for k, v in metrics["scores"].items() if not k.startswith("final_average.")}
    assert own == alone["scores"]
    assert metrics["scores"] == own | {
        f"final_average.{name}": value for name, value in averaged["scores"].items()
    }
    assert metrics["class_histogram"] == alone["class_histogram"]
    assert metrics["conditions"]["num_samples"] == 150
    assert metrics["conditions"]["num_clients"] == 2
    assert metrics["conditions"]["samples_per_client"] == {"0": 100, "7": 50}
    first, second = metrics["clients"]["0"], metrics["clients"]["7"]
    assert (first["num_samples"], second["num_samples"]) == (100, 50)
    assert first["fid_pixels"] == pytest.approx(
        score(tmp_path, made, samples[:1])["scores"]["fid_pixels"]
    )
    assert "fid_pixels" not in second
    assert second["class_shares"][0] == max(second["class_shares"])
    assert sum(second["class_shares"]) == pytest.approx(1)


def test_a_gan_has_no_sampler(made: tuple[Path, Path], tmp_path: Path) -> None:
    metrics = score(tmp_path, made, [(-1, digits()[1].images[:80])], family="dcgan")
    conditions = metrics["conditions"]
    assert (conditions["sampler"], conditions["num_steps"]) == ("generator", 1)
    assert "timestep_spacing" not in conditions


def test_utility_is_measured_on_request_from_the_samples_that_count(tmp_path: Path) -> None:
    learns = {"channels": 8, "epochs": 8, "batch_size": 32, "learning_rate": 0.01}
    asked = EvaluationConfig.model_validate(
        {"extractors": ["fid_pixels"], "utility": True, "classifier": learns}
    )
    made = (tmp_path / "judge", tmp_path / "references")
    train_label_judge(*digits(), asked, RUN)(made[0])
    prepare_references(*digits(), made[0], asked, RUN)(made[1])
    samples = [(0, digits()[0].images), (-1, np.full((600, 1, 8, 8), 255, np.uint8))]
    scores = score(tmp_path, made, samples, config=asked)["scores"]
    assert scores["utility_real"] > 0.8
    assert scores["utility"] == pytest.approx(scores["utility_real"], abs=0.1)
    without = asked.model_copy(update={"utility": False})
    assert "utility" not in score(tmp_path, made, samples, config=without)["scores"]


def test_utility_without_labels_or_enough_samples_says_why(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = CONFIG.model_copy(update={"utility": True, "extractors": ("fid_pixels",)})
    few = score(tmp_path, made, [(-1, digits()[1].images[:5])], config=asked)
    assert "5 images for 10 classes" in few["skipped"]["utility"]
    plain = (ImageSet(digits()[0].images), ImageSet(digits()[1].images))
    judge, references = tmp_path / "judge", tmp_path / "references"
    train_label_judge(*plain, asked, RUN)(judge)
    prepare_references(*plain, judge, asked, RUN)(references)
    samples = [(-1, digits()[1].images[:80])]
    unlabelled = score(tmp_path, (judge, references), samples, plain, config=asked)
    assert "no labels" in unlabelled["skipped"]["utility_real"]
    assert not {"utility", "utility_real"} & unlabelled["scores"].keys()


def test_a_judge_that_knows_only_the_commonest_class_judges_nothing(tmp_path: Path) -> None:
    # It says class 0 to every image: right on 31 of 51, as many as are of that class.
    everything = digits()[0]
    zeros, others = (np.flatnonzero((everything.labels == 0) == is_zero) for is_zero in (1, 0))
    train = everything.subset(np.concatenate([zeros[31:], others[20:]]))
    test = everything.subset(np.concatenate([zeros[:31], others[:20]]))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([2.0] + [0.0] * 9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), tmp_path / "own.pt")
    asked = EvaluationConfig.model_validate(
        {
            **CONFIG.model_dump(),
            "utility": True,
            "classifier": {"file": {"path": str(tmp_path / "own.pt")}},
        }
    )
    judge, references = tmp_path / "judge", tmp_path / "references"
    train_label_judge(train, test, asked, RUN)(judge)
    prepare_references(train, test, judge, asked, RUN)(references)
    samples = [(-1, test.images), (0, test.images)]
    metrics = score(tmp_path, (judge, references), samples, (train, test), config=asked)
    scores = metrics["scores"]
    assert scores["classifier_test_accuracy"] == scores["classifier_majority_share"] == 31 / 51
    assert not {"inception_score", "class_kl", "class_entropy", "utility"} & set(scores)
    for name in ("fid_classifier", "inception_score", "classes_covered", "utility"):
        assert (
            "60.8% of 51 test images, by chance no more than the 60.8%" in metrics["skipped"][name]
        )
    assert metrics["class_histogram"] is None
    assert "class_shares" not in metrics["clients"]["0"]
    floor = score_floor(train, test, judge, references, asked, RUN)
    scores = floor["scores"]
    assert "class_kl" not in scores and scores["classifier_majority_share"] == 31 / 51


def test_samples_of_a_conditional_model_are_judged_by_what_was_asked_for(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    real = digits()[1].subset(slice(0, 100))
    assert real.labels is not None
    samples = [(-1, real.images)]
    found = score(tmp_path, made, samples, labels=real.labels)
    right = found["scores"]["label_accuracy"]
    wrong = score(tmp_path, made, samples, labels=(real.labels + 1) % 10)
    # Of a judge that was trained for two epochs.
    assert right > 0.25 > wrong["scores"]["label_accuracy"]
    assert found["conditions"]["guidance_scale"] == 1.0
    plain = score(tmp_path, made, samples)
    assert "label_accuracy" not in {**plain["scores"], **plain["skipped"]}


def test_what_each_client_gains_is_scored_unless_nobody_knows_what_it_holds(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = CONFIG.model_copy(update={"client_utility": True})
    samples = [(-1, digits()[1].images[:100])]
    metrics = score(tmp_path, made, samples, config=asked)
    assert metrics["client_utility"].keys() == {"0", "1"}
    each = metrics["client_utility"]["0"]
    assert (each["num_images"], each["num_samples"]) == (300, 100)
    mean = np.mean([one["alone"] for one in metrics["client_utility"].values()])
    assert metrics["scores"]["client_utility_alone"] == pytest.approx(mean)
    sites = ArmSettings.model_validate({"federation": {"engine": "deployment"}})
    metrics = score(tmp_path, made, samples, config=asked, arm=sites)
    assert "client_utility" not in metrics["scores"]
    assert "sites of a deployment" in metrics["skipped"]["client_utility"]
