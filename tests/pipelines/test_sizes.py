"""README's "Your own images": the defaults fit every size, grey or RGB, with or without labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.arms.setup import assign_images, check_arm
from phoenix_pipeline.config import ArmSettings, PartitionConfig, RunConfig
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.partitioning.clients import partition_clients
from phoenix_pipeline.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"
RUN = RunConfig(device="cpu")


def settings_of(arm: str, **runtime: Any) -> tuple[ArmSettings, PartitionConfig]:
    parameters = PhoenixConfigLoader(CONF, None, runtime, **CONFIG_LOADER_ARGS)["parameters"]
    own = {name: parameters[arm][name] for name in ArmSettings.model_fields}
    partition = PartitionConfig.model_validate(parameters["partition"])
    return ArmSettings.model_validate(own), partition


def photographs(side: int, channels: int, labelled: bool, count: int = 120) -> ImageSet:
    pixels = np.random.default_rng(side).integers(0, 256, (count, channels, side, side), np.uint8)
    return ImageSet(pixels, np.arange(count) % 2, ("cat", "dog")) if labelled else ImageSet(pixels)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("side", "channels"), [(16, 1), (28, 1), (28, 3), (32, 3), (64, 1), (64, 3)]
)
@pytest.mark.parametrize("arm", ["centralized", "phoenix", "personalization", "dcgan"])
def test_every_arm_takes_photographs_as_they_come(
    tmp_path: Path, arm: str, side: int, channels: int, labelled: bool
) -> None:
    scheme = {} if labelled else {"partition": {"scheme": "iid"}}
    settings, division = settings_of(arm, **scheme)
    train, test = photographs(side, channels, labelled), photographs(side, channels, labelled, 60)
    partition = partition_clients(train.labels, train.num_images, division, 0)
    clients, _ = assign_images(train, partition, settings, RUN)
    assert len(clients) >= train.num_images
    summary = check_arm(train, test, settings, RUN, tmp_path)
    assert (summary["image_size"], summary["channels"]) == (side, channels)


def test_what_is_told_and_stored_is_settled(tmp_path: Path) -> None:
    settings, _ = settings_of("fedavg")
    train = photographs(32, 3, True)
    check_arm(train, train, settings, RUN, tmp_path)
    told = ArmModel.of(train, settings, RUN).client_settings()
    stored = told.model_dump(mode="json")
    assert stored["model"]["unet"]["block_out_channels"] == [16, 32, 64]
    assert stored["training"]["batch_size"] == 16
