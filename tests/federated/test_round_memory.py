"""The memory of a round, estimated from settings without taking any."""

import sys
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from phoenix_pipeline.config import DcganConfig, DpSgdConfig, ModelConfig, NoiseConfig, UNetConfig
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.federated import round_memory
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.round_memory import round_bytes
from tests.federated.tiny import settings

PLENTY = 1 << 60
DCGAN = ModelConfig(family="dcgan", dcgan=DcganConfig(base_channels=8, latent_dim=4))


def estimate(told: ClientSettings, num_images: int = 0) -> int:
    return round_bytes(told, num_images, PLENTY)


def test_what_a_forward_pass_keeps_is_counted_once_and_without_weights() -> None:
    first, second = nn.Linear(3, 5, device="meta"), nn.Linear(5, 2, bias=False, device="meta")
    saved = round_memory._SavedBytes([first.weight, first.bias, second.weight])
    with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda kept: kept):
        images = torch.zeros(7, 3, device="meta")
        hidden = first(images).exp()
        second(hidden)
    # The input of the first, and exp's result, which is the input of the second.
    assert saved.total == 4 * (7 * 3 + 7 * 5)


@pytest.mark.parametrize("model", [settings().model, DCGAN], ids=["unet", "dcgan"])
def test_images_weights_and_batches_count(model: ModelConfig) -> None:
    told = settings(batch_size=16).model_copy(update={"model": model, "monitor_samples": 4})
    twice, thrice = (
        told.model_copy(update={"training": told.training.model_copy(update={"batch_size": size})})
        for size in (32, 48)
    )
    nothing = estimate(told)
    assert estimate(told, 1000) - nothing == 2 * 1000 * 64
    per_batch = estimate(twice) - nothing
    assert per_batch > 16 * 64 * 4
    assert abs(estimate(thrice) - estimate(twice) - per_batch) <= 1
    weights = sum(own.nbytes for own in told.build_network().state_dict().values())
    # A diffusion model has tables of its timesteps.
    layers, tables = (4, 1000 * 64) if model is not DCGAN else (2 * 2 * 4, 0)
    assert nothing == 10 * weights + per_batch + layers * 65536 + tables
    helped = told.model_copy(update={"strategies": {"scaffold": {}}})
    assert estimate(helped) - nothing == 4 * weights
    sampled = told.model_copy(update={"monitor_samples": 128})
    assert estimate(sampled) == estimate(twice)


def test_gradients_of_single_images_count_for_dp_sgd() -> None:
    private = settings(dp_sgd=DpSgdConfig(enabled=True, noise_multiplier=1.0))
    assert estimate(private) - estimate(settings()) == 1 << 28


@pytest.mark.parametrize(
    "changes",
    [
        {
            "model": ModelConfig(
                unet=UNetConfig(block_out_channels=(1 << 20,), attention_resolutions=())
            )
        },
        {"model": ModelConfig(unet=UNetConfig(layers_per_block=10**9))},
        {"model": ModelConfig(unet=UNetConfig(block_out_channels=(8,) * 10**5))},
        {"model": ModelConfig(noise=NoiseConfig(num_train_timesteps=10**12))},
        {"model": ModelConfig(family="dcgan", dcgan=DcganConfig(layers_per_resolution=10**9))},
        {"model": ModelConfig(family="dcgan", dcgan=DcganConfig(latent_dim=10**9))},
        {"image_size": 1 << 20},
        {"channels": 10**9},
        {"training": settings(batch_size=10**9).training},
        {"monitor_samples": 10**9},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_what_no_machine_holds_is_refused_without_being_built(changes: dict[str, Any]) -> None:
    told = settings().model_copy(update=changes)
    if sys.platform == "linux":
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert round_bytes(told, 60, 1 << 30) > 1 << 30
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_a_network_with_classes_runs_too() -> None:
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        num_class_embeds=3,
    )
    assert DiffusionFamily().run_once(network, 1, 8) == 1
