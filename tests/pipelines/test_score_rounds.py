"""Scores over the rounds, of weights that were kept in real files."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phoenix_pipeline.arms.references import prepare_references, train_label_judge
from phoenix_pipeline.arms.score_rounds import score_rounds
from phoenix_pipeline.checkpoints import METADATA_FILE
from phoenix_pipeline.config import ArmSettings
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.json_files import write_json
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.seeding import image_seeds
from tests.federated.tiny import UNET, federate, settings
from tests.pipelines.test_evaluation import CONFIG, RUN, digits
from tests.written import training_record

COUNT = 40
ARM = ArmSettings.model_validate(
    {
        "sampling": {"num_steps": 2, "batch_size": 16},
        "federation": {"snapshots": {"every": 2, "images": COUNT}},
    }
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of three rounds whose second and third were kept, with judge and references."""
    folder = tmp_path_factory.mktemp("made")
    run = federate(folder / "checkpoints", rounds=3, snapshots={"every": 2})
    record = training_record(settings().model_dump(mode="json"))
    model = {"clients": [], "has_global_model": True, "weights_digest": "abcd"}
    write_json(folder / "model" / METADATA_FILE, {**record, **model})
    train_label_judge(*digits(), CONFIG, RUN)(folder / "judge")
    prepare_references(*digits(), folder / "judge", CONFIG, RUN)(folder / "references")
    return {"folder": folder, "run": run}


def score(made: dict[str, Any], checkpoints: str = "checkpoints") -> pd.DataFrame:
    folder, rounds = made["folder"], made["run"].rounds
    shared = (folder / "judge", folder / "references")
    return score_rounds(
        folder / checkpoints, folder / "model", rounds, *digits(), *shared, ARM, CONFIG, RUN
    )


def test_a_row_per_kept_round_with_its_cost(made: dict[str, Any]) -> None:
    table, rounds = score(made), made["run"].rounds
    assert table["round"].tolist() == [2, 3]
    sent = (rounds["bytes_up"] + rounds["bytes_down"]).groupby(rounds["round"]).sum()
    assert table["bytes_total"].tolist() == [sent[1] + sent[2], sent.sum()]
    assert table["images_trained"].tolist() == [48, 72]  # two clients, two steps of six images
    assert (table["num_samples"] == COUNT).all()
    assert (table["fid_classifier"] > 0).all()
    with Image.open(io.BytesIO(table["grid"][1])) as grid:
        assert grid.size == (6 * 9 - 1, 6 * 9 - 1)


def test_the_last_row_is_the_distance_of_the_last_average(made: dict[str, Any]) -> None:
    network = build_unet(UNET, 1, 8, 5)
    network.load_state_dict(made["run"].ema)
    seeds = list(image_seeds(RUN.seed, "sample", COUNT))
    model = settings().model
    drawn = np.concatenate(
        list(
            DiffusionFamily().sample_images(
                network.eval(), model, ARM.sampling, (1, 8, 8), seeds, "cpu"
            )
        )
    )
    train = digits()[0].images
    real, fake = (gaussian_statistics(x.reshape(len(x), -1) / 255) for x in (train, drawn))
    expected = frechet_distance(real, fake)
    assert score(made)["fid_pixels"].iloc[-1] == pytest.approx(expected, rel=1e-4)


def test_no_weights_no_rows(made: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert score(made, "elsewhere").empty
    assert "federation.resume=false" in caplog.text
