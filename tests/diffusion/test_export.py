"""Exported folders load here and by diffusers alone.

That a process without this package loads one is shown at the end of the smoke run.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel

from phoenix_pipeline.config import NoiseConfig
from phoenix_pipeline.diffusion.export import export_pipeline, load_unet
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.json_files import read_json

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


@pytest.fixture
def exported(tmp_path: Path, new_unet: Callable[..., UNet2DModel]) -> Path:
    export_pipeline(
        tmp_path / "model", new_unet(), NoiseConfig(num_train_timesteps=40), {"arm": "fedavg"}
    )
    return tmp_path / "model"


def test_round_trip_is_exact(exported: Path, new_unet: Callable[..., UNet2DModel]) -> None:
    before = torch.random.get_rng_state()
    loaded, expected = load_unet(exported), new_unet().state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert not loaded.training
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(loaded.state_dict()[name], expected[name]) for name in expected)
    assert read_json(exported / "phoenix.json") == {"arm": "fedavg"}


def test_export_replaces_an_earlier_one(
    exported: Path, new_unet: Callable[..., UNet2DModel]
) -> None:
    export_pipeline(exported, new_unet(1), NoiseConfig(), {"arm": "centralized"})
    assert torch.equal(load_unet(exported).conv_in.weight, new_unet(1).conv_in.weight)
    assert [path.name for path in exported.parent.iterdir()] == ["model"]


def test_diffusers_alone_loads_the_folder(
    exported: Path, new_unet: Callable[..., UNet2DModel]
) -> None:
    parts = {name: part for name, part in read_json(exported / "model_index.json").items() if part}
    assert parts.pop("_class_name") == "DDPMPipeline"
    parts.pop("_diffusers_version")
    assert {library for library, _ in parts.values()} == {"diffusers"}
    pipeline = DDPMPipeline.from_pretrained(exported, local_files_only=True)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert len(pipeline.scheduler) == 40
    loaded, expected = pipeline.unet.state_dict(), new_unet().state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere cannot be read: it has no unet"):
        load_unet(tmp_path / "nowhere")


def test_missing_weights_are_refused(exported: Path) -> None:
    (exported / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="not a complete diffusers pipeline"):
        load_unet(exported)


def test_truncated_weights_are_refused(exported: Path) -> None:
    (exported / WEIGHTS).write_bytes((exported / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a complete diffusers pipeline"):
        load_unet(exported)


def test_absent_tensor_is_refused(exported: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(exported / WEIGHTS)
    del tensors["conv_in.weight"]
    save_file(tensors, exported / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 of .* conv_in\.weight"):
        load_unet(exported)
