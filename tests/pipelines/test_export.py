"""Exported images: as many as asked for, from the right models, by their own seeds, never over."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from phoenix_pipeline.arms.sampling import draw_images
from phoenix_pipeline.config import ImagesConfig, ModelConfig, SamplingConfig, UNetConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.families.model_folder import write_models
from phoenix_pipeline.images import read_images, read_samples
from phoenix_pipeline.pipelines.sampling.export import export_samples
from phoenix_pipeline.seeding import derive_seed
from tests.written import network_settings, training_record

MODEL = ModelConfig(
    unet=UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
)
METADATA = training_record(network_settings(MODEL))
SAMPLING = SamplingConfig(num_steps=2, batch_size=3)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "fedavg"
    network = build_unet(MODEL.unet, 1, 8, 9)
    write_models(folder, network.state_dict(), [], network, METADATA)
    return folder


@pytest.fixture(scope="module")
def personal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clients' models, and their average."""
    folder = tmp_path_factory.mktemp("models") / "personalization"
    states = [build_unet(MODEL.unet, 1, 8, seed).state_dict() for seed in (0, 4)]
    heads = [{n: t for n, t in s.items() if n.startswith("conv_out")} for s in states]
    body = {n: t for n, t in states[0].items() if n not in heads[0]}
    layers = [(0, heads[0]), (4, heads[1])]
    write_models(folder, body, layers, build_unet(MODEL.unet, 1, 8, 9), METADATA)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_pngs_is_a_data_set_with_a_card(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "images"
    card = export_samples(shared, target, 7, 5, SAMPLING, scores={"memorized_share": 0.02})
    images = read_images(target, ImagesConfig()).images
    assert images.shape == (7, 1, 8, 8)
    assert len({image.tobytes() for image in images}) == 7
    rows = table(target)
    assert [row["file"] for row in rows] == [f"{i:06d}.png" for i in range(7)]
    assert [int(row["seed"]) for row in rows] == [derive_seed(5, "export", i) for i in range(7)]
    assert {row["client_id"] for row in rows} == {"-1"}
    assert json.loads((target / "data_card.json").read_text()) == card
    assert (card["num_images"], card["seed"], card["arm"]) == (7, 5, "fedavg")
    assert card["sampling"] == {
        "sampler": "dpm_solver++", "num_steps": 2, "timestep_spacing": "trailing"
    }  # fmt: skip
    assert card["model"]["trained_with"] == METADATA["trained_with"]
    assert card["model"]["data"] == METADATA["data"]
    text = (target / "README.md").read_text()
    assert "- Each client sent weights." in text
    assert "2.0% lie closer" in text
    assert "7, 8 x 8 pixels, grey" in text


def test_parquet_holds_the_same_images_whatever_the_batch(shared: Path, tmp_path: Path) -> None:
    export_samples(shared, tmp_path / "png", 5, 1, SAMPLING)
    larger = SAMPLING.model_copy(update={"batch_size": 4})
    export_samples(shared, tmp_path / "parquet", 5, 1, larger, layout="parquet")
    samples = read_samples(tmp_path / "parquet" / "samples.parquet")
    pngs = read_images(tmp_path / "png", ImagesConfig()).images
    assert np.abs(samples.images.images.astype(int) - pngs).max() <= 1
    assert samples.seed.tolist() == [derive_seed(1, "export", i) for i in range(5)]


def test_another_seed_gives_other_images(shared: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        export_samples(shared, tmp_path / str(seed), 2, seed, SAMPLING)
    first, second = (read_images(tmp_path / name, ImagesConfig()).images for name in "01")
    assert not np.array_equal(first, second)


def test_clients_share_the_number_and_one_can_be_named(personal: Path, tmp_path: Path) -> None:
    card = export_samples(personal, tmp_path / "all", 8, 0, SAMPLING)
    assert card["images_per_model"] == {"0": 6, "4": 2}
    export_samples(personal, tmp_path / "one", 3, 0, SAMPLING, client_id=4)
    assert [row["client_id"] for row in table(tmp_path / "one")] == ["4"] * 3
    with pytest.raises(CheckpointError, match="no model of client 2; clients with one: 0, 4"):
        export_samples(personal, tmp_path / "none", 3, 0, SAMPLING, client_id=2)
    assert not (tmp_path / "none").exists()


def test_nothing_is_overwritten(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(SettingsError, match="mine exists and is not overwritten"):
        export_samples(shared, tmp_path / "mine", 3, 0, SAMPLING)
    assert not list((tmp_path / "mine").iterdir())


def test_a_failure_leaves_no_folder(shared: Path, tmp_path: Path) -> None:
    too_many = SAMPLING.model_copy(update={"num_steps": 1001})
    with pytest.raises(SettingsError, match="num_steps is 1001"):
        export_samples(shared, tmp_path / "images", 3, 0, too_many)
    assert not list(tmp_path.iterdir())


def test_an_untrained_arm_is_named(tmp_path: Path) -> None:
    told = r"no trained model in .*fedavg, .*kedro run --pipelines ARM.*--env.*data_root"
    with pytest.raises(CheckpointError, match=told):
        export_samples(tmp_path / "fedavg", tmp_path / "images", 3, 0, SAMPLING)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of cats and dogs, which was trained on three times as many dogs."""
    folder = tmp_path_factory.mktemp("models") / "phoenix"
    model = MODEL.model_copy(update={"conditioning": "labels"})
    names = {"model": model.model_dump(mode="json"), "class_names": ["cat", "dog"]}
    settings = {**METADATA["settings"], **names, "personal_layers": []}
    network = build_unet(MODEL.unet, 1, 8, 9, num_classes=2)
    counts = {"class_counts": {"0": [10, 20], "4": [0, 10]}}
    metadata = {**METADATA, "settings": settings, **counts}
    write_models(folder, network.state_dict(), [], network, metadata)
    return folder


def test_labelled_images_are_read_by_imagefolder(conditional: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    card = export_samples(conditional, tmp_path / "set", 8, 5, SAMPLING)
    assert card["sampling"]["class_distribution"] == "as_training"
    loaded = load_dataset(
        "imagefolder", data_dir=str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert sorted(loaded["label"]) == ["cat"] * 2 + ["dog"] * 6
    assert loaded[0]["image"].size == (8, 8)
    # This project's own reader takes it for a labelled set as well.
    again = read_images(tmp_path / "set", ImagesConfig())
    assert again.class_names == ("cat", "dog")


def test_the_classes_to_draw_are_chosen_and_refused(conditional: Path, tmp_path: Path) -> None:
    cats = SAMPLING.model_copy(update={"class_distribution": (1.0, 0.0), "guidance_scale": 2.0})
    export_samples(conditional, tmp_path / "cats", 3, 5, cats, layout="parquet")
    samples = read_samples(tmp_path / "cats" / "samples.parquet")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 0]
    assert draw_images(conditional, 2, SAMPLING, 5, labels=[1, 1], role="export").shape == (
        2,
        1,
        8,
        8,
    )
    with pytest.raises(SettingsError, match=r"label 2 is none of the model's classes"):
        draw_images(conditional, 2, SAMPLING, 5, labels=[2, 2], role="export")


def test_a_model_without_classes_is_asked_for_none(shared: Path, tmp_path: Path) -> None:
    guided = SAMPLING.model_copy(update={"guidance_scale": 2.0})
    with pytest.raises(SettingsError, match=r"guidance_scale is 2.0, but the model has no classes"):
        export_samples(shared, tmp_path / "set", 3, 5, guided)
    with pytest.raises(SettingsError, match="the model has no classes"):
        draw_images(shared, 2, SAMPLING, 5, labels=[1, 1], role="export")
