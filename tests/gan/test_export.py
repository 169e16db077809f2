"""Exported folders load again bit for bit; broken ones are refused in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import DcganConfig, ModelConfig
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.gan.dcgan import Dcgan
from phoenix_pipeline.json_files import read_json, write_json

NewGan = Callable[..., Dcgan]


@pytest.fixture
def trained(new_gan: NewGan) -> Dcgan:
    gan = new_gan(channels=3)
    gan.generator(torch.randn(4, 5, 1, 1, generator=torch.Generator().manual_seed(0)))
    return gan


@pytest.fixture
def exported(tmp_path: Path, trained: Dcgan, tiny_config: DcganConfig) -> Path:
    model = ModelConfig(family="dcgan", dcgan=tiny_config)
    DcganFamily().export(tmp_path / "model", trained, model, {"arm": "dcgan"})
    return tmp_path / "model"


def test_round_trip_is_exact(exported: Path, trained: Dcgan) -> None:
    before = torch.random.get_rng_state()
    loaded = DcganFamily().load(exported)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(module.training for module in loaded.modules())
    state, expected = loaded.state_dict(), trained.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert state["generator.1.num_batches_tracked"].item() == 1


def test_generator_loads_without_this_package(exported: Path, trained: Dcgan) -> None:
    tensors, expected = (
        load_file(exported / "generator.safetensors"),
        trained.generator.state_dict(),
    )
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_folder_describes_itself(exported: Path, tiny_config: DcganConfig) -> None:
    config = read_json(exported / "config.json")
    assert (config["channels"], config["image_size"]) == (3, 8)
    assert ModelConfig.model_validate(config["model"]).dcgan == tiny_config
    assert read_json(exported / "phoenix.json") == {"arm": "dcgan"}
    assert {path.suffix for path in exported.iterdir()} == {".json", ".safetensors"}


def test_export_replaces_an_earlier_one(
    exported: Path, new_gan: NewGan, tiny_config: DcganConfig
) -> None:
    model = ModelConfig(family="dcgan", dcgan=tiny_config)
    DcganFamily().export(exported, new_gan(1), model, {"arm": "other"})
    loaded = DcganFamily().load(exported).state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in new_gan(1).state_dict().items())
    assert [path.name for path in exported.parent.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "name", ["config.json", "generator.safetensors", "discriminator.safetensors"]
)
def test_missing_file_is_refused(exported: Path, name: str) -> None:
    (exported / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        DcganFamily().load(exported)


@pytest.mark.parametrize("name", ["generator.safetensors", "discriminator.safetensors"])
def test_truncated_weights_are_refused(exported: Path, name: str) -> None:
    (exported / name).write_bytes((exported / name).read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{name} is not a complete safetensors file"):
        DcganFamily().load(exported)


def test_absent_tensor_is_refused(exported: Path) -> None:
    tensors, metadata = load_tensors(exported / "generator.safetensors")
    del tensors["0.weight"]
    save_tensors(exported / "generator.safetensors", tensors, metadata)
    with pytest.raises(
        CheckpointError, match=r"does not fit config.json .* \"0.weight\""
    ) as caught:
        DcganFamily().load(exported)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 16}, "generator.safetensors does not fit config.json"),
        ({"image_size": 13}, "does not describe a DCGAN: the images have 13 pixels"),
        ({"image_size": None}, "does not describe a DCGAN"),
        ({"model": {"dcgan": {"latent_dim": 0}}}, "does not describe a DCGAN: .*latent_dim"),
        ({"model": {"unknown": 1}}, "does not describe a DCGAN: .*unknown"),
    ],
)
def test_wrong_config_is_refused(exported: Path, change: dict[str, object], message: str) -> None:
    config = read_json(exported / "config.json")
    write_json(exported / "config.json", {**config, **change})
    with pytest.raises(CheckpointError, match=message) as caught:
        DcganFamily().load(exported)
    assert "\n" not in str(caught.value)
