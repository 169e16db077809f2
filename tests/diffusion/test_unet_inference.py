"""The forward pass for sampling gives what diffusers' own gives."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from phoenix_pipeline.config import UNetConfig
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.diffusion.unet_inference import predict_at
from tests.diffusion.other_unet import build_other_unet

TIMESTEPS = torch.tensor([999, 500, 0])
SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}


def network(channels: int, side: int, **options: Any) -> UNet2DModel:
    """Return a network whose biases and norms are not 0 and 1, as they are at first."""
    unet = build_unet(UNetConfig.model_validate(SMALL | options), channels, side, seed=0).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return unet


def images(count: int, channels: int, side: int) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def largest_difference(unet: nn.Module, x: Tensor) -> float:
    predict = predict_at(unet, TIMESTEPS, x.shape[-1], torch.float32)
    pairs = [(predict(x, i), unet(x, t, return_dict=False)[0]) for i, t in enumerate(TIMESTEPS)]
    assert all(found.shape == expected.shape for found, expected in pairs)
    assert not torch.equal(pairs[0][0], pairs[1][0])
    return max(float((found - expected).abs().max()) for found, expected in pairs)


@pytest.mark.parametrize(
    ("channels", "side", "options"),
    [
        (1, 8, {}),
        (1, 8, {"attention_resolutions": (), "dropout": 0.3}),
        (3, 8, {"attention_resolutions": (8, 4), "layers_per_block": 2}),
        (3, 8, {"block_out_channels": (8,), "attention_resolutions": (8,)}),
        (1, 12, {"block_out_channels": (8, 8, 16), "attention_resolutions": (6,)}),
        (3, 32, {"attention_resolutions": (16,)}),
    ],
)
def test_predictions_are_those_of_diffusers(
    channels: int, side: int, options: dict[str, Any]
) -> None:
    unet = network(channels, side, **options)
    assert largest_difference(unet, images(3, channels, side)) < 2e-5


def test_predictions_of_many_images_in_nhwc_are_those_of_diffusers() -> None:
    unet = network(1, 32, block_out_channels=(4, 8), attention_resolutions=())
    assert largest_difference(unet, images(66, 1, 32)) < 2e-5


def test_channels_last_weights_are_read_too() -> None:
    unet = network(3, 8).to(memory_format=torch.channels_last)
    assert largest_difference(unet, images(3, 3, 8)) < 2e-5


def test_bf16_is_as_close_as_that_of_autocast() -> None:
    unet, x = network(1, 8), images(4, 1, 8)
    with torch.inference_mode():
        exact = unet(x, TIMESTEPS[1], return_dict=False)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = predict_at(unet, TIMESTEPS, 8, torch.bfloat16)(x, 1)
            theirs = unet(x, TIMESTEPS[1], return_dict=False)[0]
    assert found.dtype == theirs.dtype == torch.bfloat16
    error, usual = ((half - exact).abs().mean() for half in (found, theirs))
    assert 0 < error < 1.5 * usual


def test_nothing_of_the_network_changes() -> None:
    unet, x = network(1, 8), images(2, 1, 8)
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    kept = x.clone()
    largest_difference(unet, x)
    assert torch.equal(x, kept)
    assert all(torch.equal(weight, before[name]) for name, weight in unet.state_dict().items())


def test_networks_that_are_built_otherwise_are_called_as_they_are() -> None:
    unet = build_other_unet(resnet_time_scale_shift="scale_shift").eval()
    assert largest_difference(unet, images(2, 1, 8)) == 0.0


def test_layers_that_replaced_the_network_s_own_are_called_as_they_are() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    unet = network(1, 8)
    unet.conv_out = Doubled(8, 1, 3, padding=1)
    assert largest_difference(unet, images(2, 1, 8)) == 0.0


def test_compiled_networks_are_called_as_they_are() -> None:
    unet, x = network(1, 8), images(2, 1, 8)
    # Where ``unet.compile()`` puts what is called; compiling itself takes 20 seconds.
    unet._compiled_call_impl = lambda x, t, return_dict: (x * t,)
    predict = predict_at(unet, TIMESTEPS, 8, torch.float32)
    assert torch.equal(predict(x, 1), x * 500)
