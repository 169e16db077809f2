"""FedProx in the training of both networks: only what came from the server is pulled."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import DcganConfig, TrainingConfig
from phoenix_pipeline.gan.dcgan import Dcgan
from phoenix_pipeline.gan.training import train_locally
from phoenix_pipeline.optimization.corrections import ProximalPull
from phoenix_pipeline.optimization.work import LocalWork

NewGan = Callable[..., Dcgan]
NETWORKS = ("generator", "discriminator")


def train(gan: Dcgan, images: Tensor, mu: float, pulled: tuple[str, ...], steps: int) -> Dcgan:
    names = [name for name, _ in gan.named_parameters() if name.startswith(pulled)]
    work = LocalWork(
        steps,
        0.0,
        1.0,
        seed=0,
        from_server=frozenset(names),
        corrections=(lambda shared, _: ProximalPull(shared.values(), mu),) if mu else (),
    )
    training = TrainingConfig(
        batch_size=4, lr_schedule="constant", lr_warmup=0.0, learning_rate=2e-3
    )
    train_locally(gan, images, work, DcganConfig(latent_dim=5, base_channels=4), training)
    return gan


def distance(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return float(sum((a - b).detach().square().sum() for a, b in pairs)) ** 0.5


@pytest.mark.parametrize("pulled", NETWORKS)
def test_the_first_difference_is_in_the_second_step_of_what_is_pulled(
    new_gan: NewGan, images: Tensor, pulled: str
) -> None:
    one_step = [train(new_gan(), images, mu, (pulled,), steps=1) for mu in (0.0, 10.0)]
    assert all(map(torch.equal, *(gan.parameters() for gan in one_step)))
    free, near = (train(new_gan(), images, mu, (pulled,), steps=2) for mu in (0.0, 10.0))
    start = new_gan().get_submodule(pulled)
    assert distance(near.get_submodule(pulled), start) < distance(free.get_submodule(pulled), start)
    if pulled == "generator":
        # The discriminator's second step comes before the generator's.
        assert distance(near.discriminator, free.discriminator) == 0.0
