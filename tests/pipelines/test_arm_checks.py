"""Settings that the clients at hand cannot satisfy are refused before any training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.arms.setup import assign_images, check_arm
from phoenix_pipeline.arms.training import train_arm
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.compression.channels import Channels
from phoenix_pipeline.federated.compression.codecs import Int8
from phoenix_pipeline.federated.wire import Lengths
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.registry import register

KRUM = {"rule": "krum", "num_byzantine": 1}
UNCLIPPED = {"aggregation": {"rule": "mean", "clip_norm": {"bound": None}}}
IMAGES = ImageSet(np.zeros((8, 1, 8, 8), dtype=np.uint8))


def assign(num_clients: int, **options: Any) -> pd.DataFrame:
    partition = pd.DataFrame(
        {"client_id": np.arange(8) % num_clients, "image_index": np.arange(8), "label": -1}
    )
    settings = ArmSettings(federation={"aggregation": KRUM, **options})
    return assign_images(IMAGES, partition, settings, RunConfig())[0]


def test_a_rule_for_more_clients_than_there_are_is_refused() -> None:
    assert assign(5)["client_id"].nunique() == 5
    with pytest.raises(SettingsError, match=r"krum needs 5 replies.*4 clients"):
        assign(4)
    with pytest.raises(SettingsError, match=r"krum needs 5 replies.*3 clients"):
        assign(5, client_fraction=0.6)
    with pytest.raises(SettingsError, match=r"krum needs 5 replies.*1 clients"):
        assign(5, pooled=True)


def test_usplit_with_one_client_in_a_round_is_refused() -> None:
    halves = {"compression": {"partial_update": "usplit"}, **UNCLIPPED}
    assert assign(2, **halves)["client_id"].nunique() == 2
    with pytest.raises(SettingsError, match=r"1 client trains in one.*client_fraction"):
        assign(2, client_fraction=0.5, **halves)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"federation": {"compression": {"partial_update": "usplit"}, "client_fraction": 0.5}},
            "1 client trains in one",
        ),
        (
            {
                "federation": {"differential_privacy": {"enabled": True, "noise_multiplier": 1.0}},
                "threshold_filter": {"enabled": True},
            },
            "scores of clients are",
        ),
    ],
)
def test_training_alone_refuses_settings_that_set_up_did_not_see(
    changed: dict[str, Any], line: str, tmp_path: Path
) -> None:
    unet = {"block_out_channels": (8,), "attention_resolutions": (), "norm_num_groups": 4}
    plain = {"local_work": {"unit": "steps", "amount": 1}, **UNCLIPPED}
    settings = ArmSettings(
        model={"unet": unet}, **{**changed, "federation": {**plain, **changed["federation"]}}
    )
    run, clients = RunConfig(device="cpu"), assign(2, **UNCLIPPED)
    pool = pd.DataFrame({"client_id": [], "image_index": []})
    with pytest.raises(SettingsError, match=line):
        train_arm("fedavg", IMAGES, IMAGES, clients, pool, settings, run, tmp_path / "c", {})
    assert not (tmp_path / "c").exists()


def test_the_nodes_of_a_deployment_are_counted_when_they_are_there() -> None:
    assert assign(3, engine="deployment")["client_id"].nunique() == 3


def test_a_filter_may_not_leave_too_few_for_the_rule(tmp_path: Path) -> None:
    unet = {"block_out_channels": (8,), "attention_resolutions": (), "norm_num_groups": 4}
    settings = ArmSettings(
        model={"unet": unet},
        federation={"aggregation": KRUM},
        threshold_filter={"enabled": True, "min_clients": 2},
    )
    with pytest.raises(SettingsError, match=r"min_clients is 2, but .*krum needs 5 replies"):
        check_arm(IMAGES, IMAGES, settings, RunConfig(), tmp_path)


class NamedLikeADtype(Int8):
    """A codec whose scales would take the place of arrays that are sent whole."""

    def parts(self, channels: Channels) -> Lengths:
        own = super().parts(channels)
        return {"codes": own["codes"], "float32": own["scales"]}


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_codec_with_the_name_of_a_dtype_is_refused(tmp_path: Path, way: str) -> None:
    register("codecs", "like_a_dtype", lambda config: NamedLikeADtype())
    unet = {"block_out_channels": (8,), "attention_resolutions": (), "norm_num_groups": 4}
    settings = ArmSettings(
        model={"unet": unet}, federation={"compression": {way: {"codec": "like_a_dtype"}}}
    )
    with pytest.raises(SettingsError, match="NamedLikeADtype names a vector float32, as"):
        check_arm(IMAGES, IMAGES, settings, RunConfig(device="cpu"), tmp_path)


def test_rounds_without_enough_clients_are_refused_beforehand() -> None:
    plain = {"aggregation": {"rule": "mean"}}
    assert assign(5, client_fraction=0.6, min_clients=3, **plain)["client_id"].nunique() == 5
    with pytest.raises(SettingsError, match="min_clients is 4, but of 5 clients 3 train"):
        assign(5, client_fraction=0.6, min_clients=4, **plain)
    with pytest.raises(SettingsError, match="attendance names client 6"):
        assign(5, attendance={6: "2-"}, **plain)
    assert assign(3, engine="deployment", min_clients=7, **plain) is not None
