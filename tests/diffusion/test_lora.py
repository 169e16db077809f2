"""Low-rank adapters: what they compute, what is at rest, and how they are merged and read back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from phoenix_pipeline.config import LoraConfig, ModelConfig, NoiseConfig, SamplingConfig
from phoenix_pipeline.diffusion.export import ADAPTERS_FILE, export_pipeline
from phoenix_pipeline.diffusion.lora import (
    add_adapters,
    arrays_at_rest,
    base_digest,
    merge_adapters,
)
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of

peft = pytest.importorskip("peft")

LORA = LoraConfig(rank=2, alpha=3.0, target_modules=("conv1", "to_q", "to_out.0", "time_emb_proj"))
X, T = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 900])


def adapted(new_unet: Callable[..., UNet2DModel], config: LoraConfig = LORA) -> nn.Module:
    """Return a network whose adapters say something."""
    network = add_adapters(new_unet(), config, seed=4)
    generator = torch.Generator().manual_seed(2)
    for weight in network.parameters():
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    return network.eval()


def predict(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network(X, T, return_dict=False)[0]


def read_adapters(folder: Path, unet: nn.Module) -> nn.Module:
    """Return the network with the adapters of an export, read as docs/fine-tuning.md does."""
    with safe_open(folder / ADAPTERS_FILE, "pt") as opened:
        told = json.loads(opened.metadata()["lora_adapter_metadata"])
    settings = {name.removeprefix("unet."): value for name, value in told.items()}
    peft.inject_adapter_in_model(peft.LoraConfig(**settings), unet)
    file = load_file(folder / ADAPTERS_FILE)
    arrays = {name.removeprefix("unet."): array for name, array in file.items()}
    assert not peft.set_peft_model_state_dict(unet, arrays).unexpected_keys
    return unet


def test_adapters_begin_without_effect_and_depend_on_the_seed_alone(
    new_unet: Callable[..., UNet2DModel],
) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (add_adapters(new_unet(), LORA, seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.testing.assert_close(predict(add_adapters(new_unet(), LORA, 4)), predict(new_unet()))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_linear_layer_adds_alpha_over_rank_times_b_a(
    new_unet: Callable[..., UNet2DModel],
) -> None:
    network = adapted(new_unet)
    layer = network.get_submodule("mid_block.attentions.0.to_q")
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    tokens = torch.randn(5, a.shape[1])
    expected = layer.base_layer(tokens) + 3.0 / 2.0 * tokens @ a.T @ b.T
    torch.testing.assert_close(layer(tokens), expected)


def test_parameters_and_state_are_the_adapters_alone(new_unet: Callable[..., UNet2DModel]) -> None:
    network, plain = adapted(new_unet), new_unet().state_dict()
    names = [name for name, _ in network.named_parameters()]
    assert names == list(network.state_dict())
    assert all(".lora_" in name for name in names)
    rest = arrays_at_rest(network)
    found = {name.replace(".base_layer.", "."): array for name, array in rest.items()}
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_a_at_rest_leaves_b_alone_to_be_trained(new_unet: Callable[..., UNet2DModel]) -> None:
    network = add_adapters(new_unet(), LORA.model_copy(update={"freeze_a": True}), seed=4)
    assert network.state_dict()
    assert all(".lora_B." in name for name in network.state_dict())
    assert sum(".lora_A." in name for name in arrays_at_rest(network)) == len(network.state_dict())


def test_saved_modules_are_trained_whole_beside_the_adapters(
    tmp_path: Path, new_unet: Callable[..., UNet2DModel]
) -> None:
    whole = ("conv_in", "norm1")
    network = adapted(new_unet, LORA.model_copy(update={"modules_to_save": whole}))
    saved = {name for name, _ in network.named_parameters() if ".lora_" not in name}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in saved} == set(whole)
    assert {"conv_in.weight", "conv_in.bias"} < saved == set(network.state_dict()) & saved
    assert not saved & arrays_at_rest(network).keys()
    expected = network.get_parameter("conv_in.weight")
    torch.testing.assert_close(merge_adapters(network).get_parameter("conv_in.weight"), expected)
    export_pipeline(tmp_path / "model", network, NoiseConfig(), {})
    read_back = read_adapters(tmp_path / "model", new_unet())
    torch.testing.assert_close(predict(read_back), predict(network), rtol=1e-4, atol=1e-5)


def test_a_merged_network_is_plain_and_predicts_the_same(
    new_unet: Callable[..., UNet2DModel],
) -> None:
    network = adapted(new_unet)
    merged = merge_adapters(network)
    assert merged.state_dict().keys() == new_unet().state_dict().keys()
    assert all(weight.requires_grad for weight in merged.parameters())
    torch.testing.assert_close(predict(merged), predict(network), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(predict(merged), predict(new_unet()), atol=1e-2)
    assert merge_adapters(merged) is merged


def test_digests_tell_bases_apart(new_unet: Callable[..., UNet2DModel]) -> None:
    own = base_digest(adapted(new_unet))
    assert own == base_digest(add_adapters(new_unet(), LORA, seed=9))
    changed = new_unet()
    changed.conv_out.bias.data[0] += 1e-6
    assert base_digest(add_adapters(changed, LORA, seed=4)) != own
    assert base_digest(new_unet()) == ""


def test_samples_are_drawn_with_the_adapters(new_unet: Callable[..., UNet2DModel]) -> None:
    model, network = ModelConfig(), adapted(new_unet)
    sampling = SamplingConfig(num_images=2, num_steps=3)
    drawn, merged, without = (
        next(family_of(model).sample_images(n, model, sampling, (1, 8, 8), [1, 2], "cpu"))
        for n in (network, merge_adapters(network), new_unet())
    )
    assert (drawn == merged).all()
    assert (drawn != without).any()


def test_a_layer_that_is_not_there_is_an_error_that_lists_what_there_is(
    new_unet: Callable[..., UNet2DModel],
) -> None:
    for target in ("to_query", "v1", "norm1"):
        config = LoraConfig(rank=1, target_modules=("conv1", target))
        with pytest.raises(SettingsError, match=rf"'{target}', which .* conv_in, .*to_out\.0"):
            add_adapters(new_unet(), config, seed=0)
    for layer in ("1", "lora_A", "down_blocks"):
        config = LoraConfig(rank=1, target_modules=("conv1",), modules_to_save=(layer,))
        with pytest.raises(SettingsError, match=rf"modules_to_save has '{layer}', .*norm1"):
            add_adapters(new_unet(), config, seed=0)


def test_no_layer_gets_an_adapter_and_is_trained_whole() -> None:
    with pytest.raises(ValueError, match="conv1 are in target_modules and in modules_to_save"):
        LoraConfig(rank=1, target_modules=("conv1",), modules_to_save=("conv_in", "conv1"))


def test_an_export_is_a_plain_pipeline_with_the_adapters_beside_it(
    tmp_path: Path, new_unet: Callable[..., UNet2DModel]
) -> None:
    network = adapted(new_unet)
    export_pipeline(tmp_path / "model", network, NoiseConfig(), {})
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    torch.testing.assert_close(predict(pipeline.unet), predict(network), rtol=1e-4, atol=1e-5)
    read_back = read_adapters(tmp_path / "model", new_unet())
    torch.testing.assert_close(predict(read_back), predict(network), rtol=1e-4, atol=1e-5)


def test_what_has_no_adapters_exports_none(
    tmp_path: Path, new_unet: Callable[..., UNet2DModel]
) -> None:
    export_pipeline(tmp_path / "model", new_unet(), NoiseConfig(), {})
    assert not (tmp_path / "model" / ADAPTERS_FILE).exists()


def test_without_peft_the_command_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch, new_unet: Callable[..., UNet2DModel]
) -> None:
    monkeypatch.setattr("phoenix_pipeline.diffusion.lora.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"uv pip install -e '\.\[lora\]'"):
        add_adapters(new_unet(), LORA, seed=0)
