"""The network depends on its settings and seed alone."""

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel

from phoenix_pipeline.config import UNetConfig
from phoenix_pipeline.diffusion.unet import build_unet, feature_map_sides
from phoenix_pipeline.errors import SettingsError


def test_seed_decides_the_weights(new_unet: Callable[..., UNet2DModel]) -> None:
    first, again, other = (new_unet(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_global_generator_is_left_alone(new_unet: Callable[..., UNet2DModel]) -> None:
    before = torch.random.get_rng_state()
    new_unet(3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("channels", [1, 3])
def test_prediction_has_the_shape_of_the_images(
    new_unet: Callable[..., UNet2DModel], channels: int
) -> None:
    unet = new_unet(channels=channels)
    assert unet(torch.zeros(2, channels, 8, 8), 5).sample.shape == (2, channels, 8, 8)


def test_attention_is_where_it_was_asked_for(new_unet: Callable[..., UNet2DModel]) -> None:
    unet = new_unet()
    assert list(unet.config.down_block_types) == ["DownBlock2D", "AttnDownBlock2D"]
    assert list(unet.config.up_block_types) == ["AttnUpBlock2D", "UpBlock2D"]


def test_sides_halve_at_each_level(tiny_config: UNetConfig) -> None:
    assert feature_map_sides(tiny_config, 28) == [28, 14]


def test_odd_image_size_is_refused(tiny_config: UNetConfig) -> None:
    with pytest.raises(SettingsError, match=r"images of 9 pixels .*images\.image_size"):
        build_unet(tiny_config, 1, 9, 0)


def test_unknown_attention_resolution_is_refused(tiny_config: UNetConfig) -> None:
    config = tiny_config.model_copy(update={"attention_resolutions": (4, 7)})
    with pytest.raises(SettingsError, match=r"attention_resolutions has \[7\].*\[8, 4\]"):
        build_unet(config, 1, 8, 0)
