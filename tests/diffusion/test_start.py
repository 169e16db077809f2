"""Weights that a training starts from: read where they fit, and refused with what would fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from phoenix_pipeline.config import ModelConfig, NoiseConfig, UNetConfig
from phoenix_pipeline.diffusion.export import export_pipeline
from phoenix_pipeline.diffusion.start import check_arrays, load_start
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.families import family_of

NOISE = NoiseConfig()
TINY = {"block_out_channels": (8, 16), "attention_resolutions": (4,), "norm_num_groups": 4}


def network(seed: int = 0, side: int = 8, classes: int = 0, **options: Any) -> UNet2DModel:
    return build_unet(UNetConfig.model_validate({**TINY, **options}), 1, side, seed, classes)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    export_pipeline(tmp_path / "start", network(3), NOISE, {})
    return tmp_path / "start"


def test_a_pipeline_and_a_lone_network_are_read(pipeline: Path, tmp_path: Path) -> None:
    expected = network(3).state_dict()
    network(3).save_pretrained(tmp_path / "unet_alone")
    for folder in (pipeline, tmp_path / "unet_alone"):
        found = load_start(folder, network(0), NOISE)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("ours", "noise", "line"),
    [
        ({"side": 16, "attention_resolutions": (8,)}, {}, r"images.image_size is 8, here 16"),
        ({"classes": 3}, {}, r"model.conditioning and the number of classes is None, here 4"),
        (
            {"block_out_channels": (8, 8)},
            {},
            r"model.unet.block_out_channels is \[8, 16\], here \[8, 8\]",
        ),
        # No array has another shape for it.
        ({"attention_head_dim": 4}, {}, r"model.unet.attention_head_dim is 8, here 4"),
        ({}, {"prediction_type": "epsilon"}, r"prediction_type is v_prediction, here epsilon"),
        ({}, {"prediction_type": "flow"}, r"prediction_type is v_prediction, here flow"),
        ({}, {"zero_terminal_snr": True}, r"model.noise.zero_terminal_snr is False, here True"),
        ({}, {"schedule": "linear"}, r"model.noise.schedule is squaredcos_cap_v2, here linear"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(
    pipeline: Path, ours: dict[str, Any], noise: dict[str, Any], line: str
) -> None:
    with pytest.raises(SettingsError, match=line):
        load_start(pipeline, network(**ours), NoiseConfig(**noise))


def test_a_flow_starts_from_a_flow_alone(tmp_path: Path) -> None:
    flow = NoiseConfig(prediction_type="flow")
    export_pipeline(tmp_path / "flow", network(3), flow, {})
    assert load_start(tmp_path / "flow", network(), flow).keys() == network().state_dict().keys()
    with pytest.raises(SettingsError, match=r"prediction_type is flow, here v_prediction"):
        load_start(tmp_path / "flow", network(), NOISE)


def test_arrays_are_compared_one_by_one() -> None:
    expected = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(SettingsError, match=r"2 of 2 arrays differ \(a is \(1,\), here \(2,\); b"):
        check_arrays(Path("start"), {"a": torch.zeros(1)}, expected)


def test_a_folder_without_weights_is_refused(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no unet/config\.json"):
        load_start(tmp_path, network(), NOISE)
    (pipeline / "scheduler" / "scheduler_config.json").write_text(json.dumps([])[:1])
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json"):
        load_start(pipeline, network(), NOISE)


def test_a_gan_starts_from_nothing() -> None:
    model = ModelConfig(family="dcgan")
    with pytest.raises(SettingsError, match=r"model\.start_from is for diffusion models"):
        family_of(model).load_start(Path("start"), torch.nn.Identity(), model)
