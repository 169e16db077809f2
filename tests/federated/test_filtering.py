"""Threshold filtering in real federations over the digits: bad data goes, good clients stay."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.config import (
    FederationConfig,
    ImagesConfig,
    LocalWorkConfig,
    ModelConfig,
    ThresholdFilterConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.server import train_federated
from phoenix_pipeline.images import ImageSet, read_images
from phoenix_pipeline.metrics.monitoring import build_monitor_reference
from phoenix_pipeline.seeding import numpy_generator
from tests.federated.tiny import federate, interrupt, job, make_images, same, settings

DIGITS = Path(__file__).parents[2] / "data" / "01_raw" / "digits"
GOOD, INVERTED, NOISE = range(5), 5, 6
RULES = ThresholdFilterConfig(enabled=True, monitor_every=2, monitor_samples=32)


def digits_with_two_bad_clients(seed: int) -> tuple[ImageSet, pd.DataFrame]:
    """Return five clients of two digits each, one of inverted digits, one of noise."""
    digits = read_images(DIGITS / "train.parquet", ImagesConfig())
    assert digits.labels is not None
    images, classes = digits.images.copy(), numpy_generator(seed, "classes").permutation(10)
    owner = np.full(digits.num_images, -1)
    for client in GOOD:
        own = np.flatnonzero(np.isin(digits.labels, classes[2 * client : 2 * client + 2]))
        owner[own[:150]] = client
    left = np.flatnonzero(owner < 0)
    owner[left[:150]], owner[left[150:300]] = INVERTED, NOISE
    images[owner == INVERTED] = 255 - images[owner == INVERTED]
    noise = numpy_generator(seed, "noise").integers(0, 256, images[owner == NOISE].shape)
    images[owner == NOISE] = noise
    held = np.flatnonzero(owner >= 0)
    table = pd.DataFrame({"client_id": owner[held], "image_index": held})
    return ImageSet(images, digits.labels, digits.class_names), table


def filtered_run(folder: Path, seed: int) -> FederatedResult:
    images, clients = digits_with_two_bad_clients(seed)
    unet = UNetConfig(block_out_channels=(8, 16), attention_resolutions=(), norm_num_groups=4)
    told = ClientSettings(
        model=ModelConfig(unet=unet),
        training=TrainingConfig(batch_size=32, optimizer_state="keep"),
        channels=1,
        image_size=8,
        seed=seed,
        personal_layers=("conv_norm_out", "conv_out"),
        monitor_samples=RULES.monitor_samples,
    )
    work = LocalWorkConfig(unit="steps", amount=15)
    reference = build_monitor_reference(read_images(DIGITS / "test.parquet", ImagesConfig()), 0)
    return train_federated(
        FederatedJob(
            images=images,
            client_images=clients,
            config=FederationConfig(num_rounds=5, local_work=work),
            settings=told,
            device="cpu",
            threshold_filter=RULES,
            reference=reference,
        ),
        folder,
    )


@pytest.mark.parametrize(
    "seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_bad_clients_are_disconnected_and_good_ones_are_not(tmp_path: Path, seed: int) -> None:
    result = filtered_run(tmp_path, seed)
    assert result.connected == tuple(GOOD)
    rows = result.rounds
    decided = rows[~rows["connected"]]
    assert sorted(decided["client_id"]) == [INVERTED, NOISE]
    assert set(decided["round"]) == {4}  # the second check: patience is 2
    assert (decided["score"] > decided["threshold"]).all()
    assert decided["reason"].str.contains("above .* in 2 checks in a row").all()
    assert set(rows[rows["round"] == 5]["client_id"]) == set(GOOD)
    assert rows[rows["score"].notna()]["round"].unique().tolist() == [2, 4]


def test_a_score_costs_a_number_up_and_the_reference_down(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    reference = build_monitor_reference(make_images(60), 0)
    rules = ThresholdFilterConfig(
        enabled=True, monitor_every=2, monitor_samples=16, monitor_steps=2, absolute_threshold=1e6
    )
    plain = federate(tmp_path / "plain").rounds
    checked = federate(tmp_path / "checked", threshold_filter=rules, reference=reference).rounds
    assert (checked["bytes_up"] - plain["bytes_up"]).tolist()[:2] == [0, 0]
    assert (checked["bytes_up"] - plain["bytes_up"]).between(1, 100)[2:].all()
    size = sum(4 * t.numel() for t in reference.arrays().values())
    assert (checked["bytes_down"] - plain["bytes_down"]).between(size, size + 2000)[2:].all()
    assert checked["score"].notna().tolist() == [False, False, True, True]
    assert (checked["threshold"][2:] == 1e6).all()
    said = "round 2: the threshold filter checked 2 clients by their samples: 0 above the threshold"
    assert said in caplog.messages


def test_strikes_survive_a_restart(tmp_path: Path) -> None:
    options = {
        "threshold_filter": ThresholdFilterConfig(
            enabled=True,
            monitor_every=1,
            monitor_samples=16,
            monitor_steps=2,
            absolute_threshold=1.0001,
            patience=2,
            min_clients=1,
        ),
        "reference": build_monitor_reference(make_images(60), 0),
        "settings": settings(optimizer_state="keep"),
        "rounds": 3,
    }
    whole = federate(tmp_path / "whole", **options)
    assert len(whole.connected) == 1
    assert whole.rounds["strikes"].tolist()[:4] == [1, 1, 2, 2]
    assert "kept, because min_clients=1" in " ".join(whole.rounds["reason"])

    interrupt(tmp_path / "cut", after=1, **options)
    resumed = federate(tmp_path / "cut", **options)
    assert resumed.connected == whole.connected
    assert same(resumed.raw, whole.raw)


def test_a_model_that_cannot_be_sampled_gets_a_strike_and_not_an_end(tmp_path: Path) -> None:
    reference = build_monitor_reference(make_images(60), 0)
    rules = ThresholdFilterConfig(
        enabled=True, monitor_every=1, monitor_samples=16, monitor_steps=2, absolute_threshold=1e6
    )
    exploding = settings(learning_rate=5e14, max_grad_norm=None, lr_warmup=0.0)
    one_step = LocalWorkConfig(unit="steps", amount=1)
    plan = job(rounds=1, settings=exploding, threshold_filter=rules, reference=reference)
    config = plan.config.model_copy(update={"local_work": one_step})
    rows = train_federated(FederatedJob(**{**vars(plan), "config": config}), tmp_path).rounds
    assert all(math.isnan(score) for score in rows["score"])
    assert rows["strikes"].tolist() == [1, 1]
    assert rows["status"].tolist() == ["ok", "ok"]
