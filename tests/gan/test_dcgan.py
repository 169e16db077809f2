"""Shapes, the paper's architecture and initialisation, and weights from a seed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from phoenix_pipeline.config import DcganConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.aggregation import WeightedMean
from phoenix_pipeline.gan.dcgan import Dcgan, build_dcgan, smallest_side

NewGan = Callable[..., Dcgan]


def conv_shapes(network: nn.Module) -> list[tuple[int, int, int, int]]:
    """Return (in, out, kernel, stride) of each convolution, in order."""
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
        for m in network.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [8, 16, 28, 32, 36, 64, 128])
def test_shapes_and_range(image_size: int, channels: int, layers: int) -> None:
    config = DcganConfig(latent_dim=5, base_channels=4, layers_per_resolution=layers)
    gan = build_dcgan(config, channels, image_size, seed=0)
    images = gan(torch.randn(3, 5, 1, 1, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (3, channels, image_size, image_size)
    assert images.abs().max() <= 1.0
    assert gan.discriminator(images).shape == (3,)


def test_one_layer_per_resolution_is_the_paper(new_gan: NewGan) -> None:
    gan = build_dcgan(
        DcganConfig(latent_dim=100, base_channels=64, layers_per_resolution=1), 3, 64, seed=0
    )
    assert conv_shapes(gan.generator) == [
        (100, 512, 4, 1), (512, 256, 4, 2), (256, 128, 4, 2), (128, 64, 4, 2), (64, 3, 4, 2)
    ]  # fmt: skip
    assert conv_shapes(gan.discriminator) == [
        (3, 64, 4, 2), (64, 128, 4, 2), (128, 256, 4, 2), (256, 512, 4, 2), (512, 1, 4, 1)
    ]  # fmt: skip
    norms = [
        [m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        for network in (gan.generator, gan.discriminator)
    ]
    assert norms == [[512, 256, 128, 64], [128, 256, 512]]


def test_more_layers_add_convolutions_of_stride_1() -> None:
    config = DcganConfig(latent_dim=9, base_channels=4, layers_per_resolution=2)
    gan = build_dcgan(config, 1, 16, seed=0)
    assert conv_shapes(gan.generator) == [
        (9, 8, 4, 1), (8, 8, 3, 1), (8, 4, 4, 2), (4, 4, 3, 1), (4, 4, 4, 2), (4, 1, 3, 1)
    ]  # fmt: skip
    assert conv_shapes(gan.discriminator) == [
        (1, 4, 3, 1), (4, 4, 4, 2), (4, 4, 3, 1), (4, 8, 4, 2), (8, 8, 3, 1), (8, 1, 4, 1)
    ]  # fmt: skip


def test_weights_are_drawn_as_in_the_paper() -> None:
    gan = build_dcgan(DcganConfig(latent_dim=64, base_channels=64), 1, 16, seed=0)
    first = gan.generator[0].weight
    assert first.std().item() == pytest.approx(0.02, rel=0.02)
    assert first.mean().item() == pytest.approx(0.0, abs=2e-4)
    scale = gan.generator[1].weight
    assert scale.mean().item() == pytest.approx(1.0, abs=0.01)
    assert scale.std().item() == pytest.approx(0.02, rel=0.3)
    assert not gan.generator[1].bias.any()


def test_weights_depend_on_the_seed_alone(new_gan: NewGan) -> None:
    before = torch.random.get_rng_state()
    first = new_gan(0).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    again, other = new_gan(0).state_dict(), new_gan(1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["generator.0.weight"], other["generator.0.weight"])
    assert not torch.equal(first["discriminator.0.weight"], other["discriminator.0.weight"])


@pytest.mark.parametrize("image_size", [9, 25])
def test_impossible_sizes_name_a_possible_one(new_gan: NewGan, image_size: int) -> None:
    with pytest.raises(SettingsError, match=rf"have {image_size} pixels.*size={image_size + 1},"):
        new_gan(image_size=image_size)
    assert new_gan(image_size=image_size + 1).image_size == image_size + 1


@pytest.mark.parametrize(("image_size", "smallest"), [(8, 4), (28, 7), (64, 4), (48, 6), (22, 11)])
def test_sides_are_halved_while_four_pixels_are_left(image_size: int, smallest: int) -> None:
    assert smallest_side(image_size) == smallest


@pytest.mark.parametrize("field", ["latent_dim", "base_channels", "layers_per_resolution"])
def test_sizes_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        DcganConfig.model_validate({field: 0})


def test_compile_reaches_both_networks(new_gan: NewGan) -> None:
    class Recorder(nn.Identity):
        def compile(self, *args: Any, **kwargs: Any) -> None:
            self.options = kwargs

    gan = new_gan()
    gan.generator, gan.discriminator = Recorder(), Recorder()
    gan.compile(dynamic=False)
    assert gan.generator.options == gan.discriminator.options == {"dynamic": False}


def test_federated_averaging_restores_batch_norm_and_its_dtypes(new_gan: NewGan) -> None:
    first, second, mean = new_gan(0), new_gan(1), WeightedMean(new_gan().state_dict())
    random = torch.Generator().manual_seed(0)
    for gan, batches in ((first, 2), (second, 5)):
        for _ in range(batches):
            gan.generator(torch.randn(6, 5, 1, 1, generator=random))
    a, b = first.state_dict(), second.state_dict()
    mean.add(a, 1.0)
    mean.add(b, 3.0)
    averaged = mean.result()
    loaded = new_gan(2)
    loaded.load_state_dict(averaged)
    for name, tensor in loaded.state_dict().items():
        assert averaged[name].dtype == tensor.dtype == a[name].dtype
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (a[name] + 3.0 * b[name]) / 4.0)
    counted = loaded.state_dict()["generator.1.num_batches_tracked"]
    assert counted.dtype == torch.int64
    assert counted.item() == 4  # (2 + 3 x 5) / 4 = 4.25
    assert not torch.equal(a["generator.1.running_mean"], b["generator.1.running_mean"])
