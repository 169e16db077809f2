"""The forward pass of several clients at once gives what each client's network gives alone."""

import gc
from typing import Any
from weakref import ref

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.func import functional_call

from phoenix_pipeline.config import NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.diffusion.batched_unet import BatchedUNet, batched_attention
from phoenix_pipeline.diffusion.columns import Columns
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.stack import Stack
from phoenix_pipeline.diffusion.stacked_unet import StackedUNet
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.diffusion.unet_layers import is_known

SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}
NETWORKS: list[tuple[int, int, dict[str, Any]]] = [
    (1, 8, {}),
    (1, 8, {"attention_resolutions": (), "dropout": 0.3}),
    (3, 8, {"attention_resolutions": (8, 4), "layers_per_block": 2}),
    (3, 8, {"block_out_channels": (8,), "attention_resolutions": (8,)}),
    (1, 12, {"block_out_channels": (8, 8, 16), "attention_resolutions": (6,)}),
    (3, 32, {"attention_resolutions": (16,), "attention_head_dim": 8}),
]
CLASSES = 4


def network(channels: int, side: int, classes: int = 0, **options: Any) -> UNet2DModel:
    config = UNetConfig.model_validate(SMALL | options)
    return build_unet(config, channels, side, seed=0, num_classes=classes).eval()


def weights_of(unet: nn.Module, clients: int) -> dict[str, Tensor]:
    """Return weights [clients, ...] that differ, with biases and norms that are not 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: own.detach() + 0.05 * torch.randn(clients, *own.shape, generator=generator)
        for name, own in unet.named_parameters()
    }


def inputs(clients: int, channels: int, side: int, labelled: bool = False) -> tuple[Tensor, ...]:
    """Return x_t and timesteps of two images of each client, and perhaps classes."""
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(clients, 2, channels, side, side, generator=generator)
    t = torch.randint(1000, (clients, 2), generator=generator)
    # The last row is the null class.
    labels = torch.randint(CLASSES + 1, (clients, 2), generator=generator)
    return (x_t, t, labels) if labelled else (x_t, t)


@torch.no_grad()
def assert_predicts_as_each_alone(
    unet: nn.Module, weights: dict[str, Tensor], given: tuple[Tensor, ...]
) -> None:
    found = StackedUNet(unet)(weights, *given)
    assert found.shape == given[0].shape
    for client, own in enumerate(found):
        alone = {name: stacked[client] for name, stacked in weights.items()}
        expected = functional_call(unet, alone, tuple(part[client] for part in given))[0]
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("channels", "side", "options"), NETWORKS)
@pytest.mark.parametrize("clients", [1, 3])
def test_predictions_are_those_of_each_network(
    channels: int, side: int, options: dict[str, Any], clients: int
) -> None:
    unet = network(channels, side, **options)
    assert is_known(unet)
    given = inputs(clients, channels, side)
    assert_predicts_as_each_alone(unet, weights_of(unet, clients), given)


@pytest.mark.parametrize("clients", [1, 3])
def test_predictions_of_classes_are_those_of_each_network(clients: int) -> None:
    unet = network(1, 8, CLASSES)
    assert_predicts_as_each_alone(unet, weights_of(unet, clients), inputs(clients, 1, 8, True))


@pytest.mark.parametrize(
    ("side", "classes", "options"),
    [(8, 0, NETWORKS[2][2]), (8, CLASSES, {}), (32, 0, NETWORKS[5][2])],
)
def test_gradients_are_those_of_vmap(side: int, classes: int, options: dict[str, Any]) -> None:
    unet = network(3, side, classes, **options).train()
    weights, given = weights_of(unet, 3), inputs(3, 3, side, labelled=classes > 0)
    leaves = [weight.requires_grad_() for weight in weights.values()]
    gradients = []
    with batched_attention(unet):
        for predict in (StackedUNet(unet), BatchedUNet(unet)):
            loss = predict(weights, *given).square().mean()
            gradients.append(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    # Those of the keys' biases are zero.
    assert sum(float(own.abs().amax()) > 1e-4 for own in gradients[0]) > 0.9 * len(leaves)


def test_bf16_is_as_close_as_that_of_diffusers() -> None:
    unet = network(1, 8)
    weights, (x_t, t) = weights_of(unet, 1), inputs(1, 1, 8)
    alone = {name: stacked[0] for name, stacked in weights.items()}
    with torch.no_grad():
        exact = functional_call(unet, alone, (x_t[0], t[0]))[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = StackedUNet(unet)(weights, x_t, t)[0]
            theirs = functional_call(unet, alone, (x_t[0], t[0]))[0]
    assert found.dtype == theirs.dtype == torch.bfloat16
    error, usual = ((half - exact).abs().mean() for half in (found, theirs))
    assert 0 < error < 1.5 * usual


class _Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_networks_with_other_layers_are_not_known() -> None:
    unet = network(1, 8)
    assert is_known(unet)
    unet.down_blocks[0].resnets[0].conv1 = _Doubled(8, 8, 3, padding=1)
    assert not is_known(unet)
    assert not is_known(nn.Linear(1, 1))


def test_a_stack_lets_its_network_go() -> None:
    unet = network(1, 8)
    columns = Columns.of(unet, frozenset())
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    schedule = NoiseSchedule.from_config(NoiseConfig(), "cpu")
    stack = Stack(unet, columns, 2, images, schedule, TrainingConfig(batch_size=2), None)
    assert bool(stack.set_gradients(2).isfinite().all())
    held = ref(unet)
    del unet
    gc.collect()
    assert held() is None
    assert stack.rows
