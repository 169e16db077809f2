"""An image is decided by its seed and the weights, and by nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import ModelConfig, SamplingConfig
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.families.dcgan import DcganFamily
from phoenix_pipeline.gan.dcgan import Dcgan
from phoenix_pipeline.gan.sampling import sample_images

NewGan = Callable[..., Dcgan]


def draw(gan: Dcgan, seeds: list[int], batch_size: int = 4) -> np.ndarray:
    return np.concatenate(list(sample_images(gan, batch_size, seeds, "cpu")))


def test_batches_are_uint8_in_the_order_of_the_seeds(new_gan: NewGan) -> None:
    batches = list(sample_images(new_gan(channels=3), 4, list(range(10)), "cpu"))
    assert [batch.shape for batch in batches] == [(4, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]
    assert all(batch.dtype == np.uint8 for batch in batches)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_image_depends_on_its_seed_only(new_gan: NewGan, batch_size: int) -> None:
    gan = new_gan()
    with torch.no_grad():
        for parameter in gan.generator.parameters():
            parameter.mul_(8.0)  # At initialisation every image is all but grey.
    whole = draw(gan, list(range(7)), 7)
    assert len(np.unique(whole.reshape(7, -1), axis=0)) == 7
    assert np.array_equal(draw(gan, list(range(7)), batch_size), whole)
    assert np.array_equal(draw(gan, [5, 2], batch_size), whole[[5, 2]])


def test_image_is_the_generator_of_the_seeded_latent(new_gan: NewGan) -> None:
    gan = new_gan()
    latent = torch.randn(1, 5, 1, 1, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = ((gan.eval().generator(latent) + 1.0) * 127.5).round().numpy()
    assert np.array_equal(draw(gan, [3]), expected)


@pytest.mark.parametrize("training", [True, False])
def test_network_and_global_generator_are_left_alone(new_gan: NewGan, training: bool) -> None:
    gan = new_gan().train(training)
    before, weights = torch.random.get_rng_state(), new_gan().state_dict()
    draw(gan, [0, 1])
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(module.training is training for module in gan.modules())
    assert all(torch.equal(weights[name], tensor) for name, tensor in gan.state_dict().items())


def test_diverged_weights_are_an_error(new_gan: NewGan) -> None:
    gan = new_gan()
    with torch.no_grad():
        gan.generator[0].weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match="images that are not finite; its weights diverged"):
        draw(gan, [0])


def test_number_of_steps_changes_nothing(new_gan: NewGan) -> None:
    gan, model = new_gan(), ModelConfig(family="dcgan")
    one, many = (
        list(DcganFamily().sample_images(gan, model, sampling, (1, 8, 8), [0, 1, 2], "cpu"))
        for sampling in (SamplingConfig(batch_size=2, num_steps=n) for n in (1, 50))
    )
    assert np.array_equal(np.concatenate(one), np.concatenate(many))


def test_another_shape_is_refused_at_once(new_gan: NewGan) -> None:
    model, sampling = ModelConfig(family="dcgan"), SamplingConfig()
    with pytest.raises(SettingsError, match=r"shape \(3, 8, 8\) .* makes \(1, 8, 8\); set images"):
        DcganFamily().sample_images(new_gan(), model, sampling, (3, 8, 8), [0], "cpu")
