"""Batches that pass the network in parts, and forward passes that are computed twice."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from pydantic import ValidationError
from torch import Tensor

from phoenix_pipeline.config import NoiseConfig, TrainingConfig
from phoenix_pipeline.diffusion.graphed import why_not_graphed
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.stacked import why_not_stacked
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import settle_training
from phoenix_pipeline.optimization.work import LocalResult, LocalWork

SCHEDULE = NoiseSchedule.from_config(NoiseConfig(), "cpu")


def train(
    network: UNet2DModel, images: Tensor, **training: Any
) -> tuple[LocalResult, dict[str, Tensor]]:
    """Train for one step on 12 images; return its result and what AdamW saw of the gradients."""
    moments: dict[str, Tensor] = {}
    config = TrainingConfig(batch_size=12, **training)
    result = train_locally(network, images, LocalWork(1, 0.5, 0.5, 3), SCHEDULE, config, moments)
    return result, {name: m for name, m in moments.items() if name.startswith("exp_avg.")}


@pytest.mark.parametrize("weighting", ["none", "min_snr"])
@pytest.mark.parametrize("size", [1, 5, 6])
def test_parts_add_up_to_the_batch(
    size: int, weighting: str, new_unet: Callable[..., UNet2DModel], images: Tensor
) -> None:
    options = {"loss_weighting": weighting, "max_grad_norm": None}
    whole, gradients = train(new_unet(), images, **options)
    calls: list[int] = []
    network = new_unet()
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    parts, in_parts = train(network, images, micro_batch=size, **options)
    assert calls == {1: [1] * 12, 5: [5, 5, 2], 6: [6, 6]}[size]
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    for name, expected in gradients.items():
        torch.testing.assert_close(in_parts[name], expected, rtol=1e-3, atol=1e-7)


def test_a_micro_batch_of_all_images_changes_no_bit(
    new_unet: Callable[..., UNet2DModel], images: Tensor
) -> None:
    _, whole = train(new_unet(), images)
    _, same = train(new_unet(), images, micro_batch=12)
    assert all(torch.equal(same[name], whole[name]) for name in whole)


def test_checkpointing_computes_the_same_and_keeps_less(
    new_unet: Callable[..., UNet2DModel], images: Tensor
) -> None:
    kept = []

    def measure(**training: Any) -> tuple[int, dict[str, Tensor]]:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            _, gradients = train(new_unet(), images, **training)
        return sum(kept), gradients

    whole, expected = measure()
    less, found = measure(gradient_checkpointing=True)
    assert less < whole
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("setting", [{"micro_batch": 4}, {"gradient_checkpointing": True}])
def test_they_go_with_neither_stacks_nor_recorded_steps_nor_dp_sgd(setting: dict[str, Any]) -> None:
    config = TrainingConfig(**setting)
    assert "save memory" in str(why_not_stacked(config))
    assert "save memory" in str(why_not_graphed(config))
    noise = {"enabled": True, "noise_multiplier": 1.0}
    with pytest.raises(ValidationError, match="at a time as memory allows"):
        TrainingConfig(dp_sgd=noise, **setting)


@pytest.mark.parametrize(("side", "expected"), [(8, None), (64, None), (128, None), (256, 2)])
def test_the_size_of_images_decides_where_it_is_left_open(side: int, expected: int | None) -> None:
    waiting = TrainingConfig.model_validate({"micro_batch": "auto"})
    assert settle_training(waiting, side, pooled=False, aligned=False).micro_batch == expected
    asked = TrainingConfig(micro_batch=3)
    assert settle_training(asked, side, pooled=False, aligned=False).micro_batch == 3
    noise = {"enabled": True, "noise_multiplier": 1.0}
    private = TrainingConfig.model_validate({"micro_batch": "auto", "dp_sgd": noise})
    assert settle_training(private, side, pooled=False, aligned=False).micro_batch is None
