"""What is written is what is loaded: one model, or a shared body and layers per client."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors
from phoenix_pipeline.config import ModelConfig, UNetConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.families.model_folder import (
    assemble_client,
    load_network,
    read_description,
    weights_digest,
    write_models,
)
from tests.written import network_settings, training_record

MODEL = ModelConfig(
    unet=UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
)
METADATA = training_record(network_settings(MODEL))


def states(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    state = build_unet(MODEL.unet, 1, 8, seed).state_dict()
    personal = {n: t for n, t in state.items() if n.startswith("conv_out")}
    return {n: t for n, t in state.items() if n not in personal}, personal


def write_two_clients(folder: Path, *, with_global: bool = False) -> None:
    body, zero = states(0)
    _, four = states(4)
    network = build_unet(MODEL.unet, 1, 8, 9) if with_global else None
    write_models(folder, body, [(0, zero), (4, four)], network, METADATA)


def test_each_client_gets_the_body_and_its_own_layers(tmp_path: Path) -> None:
    write_two_clients(tmp_path / "arm")
    for client in (0, 4):
        loaded = load_network(tmp_path / "arm", client).state_dict()
        expected = {**states(0)[0], **states(client)[1]}
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert sorted(p.name for p in (tmp_path / "arm/clients").iterdir()) == [
        "0.safetensors",
        "4.safetensors",
    ]


def test_a_global_model_alone_is_the_familys_own_layout(tmp_path: Path) -> None:
    network = build_unet(MODEL.unet, 1, 8, 9)
    write_models(tmp_path / "arm", network.state_dict(), [], network, METADATA)
    assert not list((tmp_path / "arm").glob("*body*"))
    assert read_description(tmp_path / "arm")["clients"] == []
    loaded = load_network(tmp_path / "arm").state_dict()
    assert all(torch.equal(loaded[n], t) for n, t in network.state_dict().items())


def test_there_may_be_both(tmp_path: Path) -> None:
    write_two_clients(tmp_path / "arm", with_global=True)
    whole = load_network(tmp_path / "arm").state_dict()
    assert torch.equal(whole["conv_in.weight"], states(9)[0]["conv_in.weight"])
    assert load_network(tmp_path / "arm", 4).training is False


def test_the_shared_layers_are_kept_where_no_client_released_its_own(tmp_path: Path) -> None:
    body = {"conv_in.weight": torch.ones(2)}
    write_models(tmp_path / "arm", body, [], None, METADATA)
    kept = load_tensors(tmp_path / "arm" / "shared_body.safetensors")[0]
    assert torch.equal(kept["conv_in.weight"], torch.ones(2))


def test_an_assembled_client_is_a_pipeline_of_diffusers(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline

    write_two_clients(tmp_path / "arm")
    assemble_client(tmp_path / "arm", 4, tmp_path / "client_4")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "client_4", local_files_only=True)
    expected = states(4)[1]["conv_out.weight"]
    assert torch.equal(pipeline.unet.state_dict()["conv_out.weight"], expected)
    assert json.loads((tmp_path / "client_4/phoenix.json").read_text())["client_id"] == 4


def test_missing_models_are_named_with_those_that_exist(tmp_path: Path) -> None:
    write_two_clients(tmp_path / "arm")
    with pytest.raises(CheckpointError, match=r"no model of client 3; it has .* clients 0, 4$"):
        load_network(tmp_path / "arm", 3)
    with pytest.raises(CheckpointError, match="no global model"):
        load_network(tmp_path / "arm")
    with pytest.raises(CheckpointError, match=r"no trained model in .*nothing, for it has no phoe"):
        load_network(tmp_path / "nothing")


def test_layers_that_do_not_complete_the_body_are_refused(tmp_path: Path) -> None:
    body, zero = states(0)
    del zero["conv_out.bias"]
    write_models(tmp_path / "arm", body, [(0, zero)], None, METADATA)
    with pytest.raises(CheckpointError, match=r"client 0 do not complete .*conv_out\.bias"):
        load_network(tmp_path / "arm", 0)


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ({"name": "phoenix", "version": 3}, "usable arm, weights, rounds, settings and 1"),
        ([1, 2], "usable content"),
        ({"settings": 7, "clients": [], "has_global_model": True}, "usable arm.*, settings"),
    ],
)
def test_a_description_of_another_program_is_one_line(
    tmp_path: Path, content: object, missing: str
) -> None:
    (tmp_path / "phoenix.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"another program or version: it has no {missing}"):
        read_description(tmp_path)


def test_a_model_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    told = {**METADATA, "clients": [], "has_global_model": True, "weights_digest": "abcd"}
    del told["epsilon"]
    (tmp_path / "phoenix.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"no usable epsilon; make it again"):
        read_description(tmp_path)


def test_the_digest_is_of_the_weights_not_of_the_order_in_a_header(tmp_path: Path) -> None:
    tensor = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}

    def digest(header: dict[str, Any], content: bytes) -> str:
        text = json.dumps(header).encode()
        (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content)
        return weights_digest(tmp_path)

    first = digest({"__metadata__": {"a": "1", "b": "2"}, "w": tensor}, b"xy")
    assert first == digest({"w": tensor, "__metadata__": {"b": "2", "a": "1"}}, b"xy")
    assert first != digest({"__metadata__": {"a": "1", "b": "2"}, "w": tensor}, b"xz")
    assert first != digest({"__metadata__": {"a": "1", "b": "2"}, "v": tensor}, b"xy")
