"""README's "Your own images": the defaults fit every size, grey or RGB, with or without labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoenix_pipeline.config import (
    FederationConfig,
    ModelConfig,
    PartitionConfig,
    PersonalLayersConfig,
    RunConfig,
    SamplingConfig,
    SharedPoolConfig,
    ThresholdFilterConfig,
    TrainingConfig,
)
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.partitioning.clients import partition_clients
from phoenix_pipeline.pipelines.shared_pool.nodes import assign_images, check_arm, client_settings
from phoenix_pipeline.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"
GROUPS = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "federation": FederationConfig,
    "personal_layers": PersonalLayersConfig,
    "threshold_filter": ThresholdFilterConfig,
    "shared_pool": SharedPoolConfig,
    "sampling": SamplingConfig,
}


def arm_groups(arm: str, **runtime: Any) -> dict[str, Any]:
    parameters = PhoenixConfigLoader(CONF, None, runtime, **CONFIG_LOADER_ARGS)["parameters"]
    groups = {n: model.model_validate(parameters[arm][n]) for n, model in GROUPS.items()}
    groups["partition"] = PartitionConfig.model_validate(parameters["partition"])
    return groups


def photographs(side: int, channels: int, labelled: bool, count: int = 120) -> ImageSet:
    pixels = np.random.default_rng(side).integers(0, 256, (count, channels, side, side), np.uint8)
    return ImageSet(pixels, np.arange(count) % 2, ("cat", "dog")) if labelled else ImageSet(pixels)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("side", "channels"), [(16, 1), (28, 1), (28, 3), (32, 3), (64, 1), (64, 3)]
)
@pytest.mark.parametrize("arm", ["centralized", "data_sharing", "personalization", "dcgan"])
def test_every_arm_takes_photographs_as_they_come(
    tmp_path: Path, arm: str, side: int, channels: int, labelled: bool
) -> None:
    scheme = {} if labelled else {"partition": {"scheme": "iid"}}
    groups = arm_groups(arm, **scheme)
    train, test = photographs(side, channels, labelled), photographs(side, channels, labelled, 60)
    run = RunConfig(device="cpu")
    partition = partition_clients(train.labels, train.num_images, groups["partition"], 0)
    pool, federation = groups["shared_pool"], groups["federation"]
    clients, _ = assign_images(train, partition, pool, federation, run)
    assert len(clients) >= train.num_images
    names = [n for n in GROUPS if n != "sampling"]
    summary = check_arm(
        train, test, *(groups[n] for n in names), groups["sampling"], run, checkpoints=tmp_path
    )
    assert (summary["image_size"], summary["channels"]) == (side, channels)


def test_what_is_told_and_stored_is_settled(tmp_path: Path) -> None:
    groups = arm_groups("fedavg")
    train = photographs(32, 3, True)
    names = [n for n in GROUPS if n != "sampling"]
    summary = check_arm(
        train, train, *(groups[n] for n in names), groups["sampling"], RunConfig(device="cpu"),
        checkpoints=tmp_path,
    )  # fmt: skip
    told = client_settings(
        summary,
        *(groups[n] for n in ("model", "training", "federation", "threshold_filter")),
        RunConfig(),
    )
    stored = told.model_dump(mode="json")
    assert stored["model"]["unet"]["block_out_channels"] == [16, 32, 64]
    assert stored["training"]["batch_size"] == 32
