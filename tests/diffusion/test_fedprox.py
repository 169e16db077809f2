"""FedProx in local training: the steps of a plain loop whose loss has the proximal term in it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from phoenix_pipeline.config import NoiseConfig, TrainingConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.optimization.corrections import ProximalPull
from phoenix_pipeline.optimization.work import LocalWork, draw_batches, prepare_batch

NewUnet = Callable[..., UNet2DModel]
SCHEDULE = NoiseSchedule.from_config(NoiseConfig(), "cpu")
MU, STEPS, SEED = 0.5, 4, 3


def is_shared(name: str) -> bool:
    return not name.startswith("conv_out")


def settings(**options: float | None) -> TrainingConfig:
    plain = {"batch_size": 4, "lr_schedule": "constant", "lr_warmup": 0.0, "learning_rate": 1e-3}
    return TrainingConfig.model_validate({**plain, **options})


def plain_loop(unet: nn.Module, images: Tensor, config: TrainingConfig) -> None:
    """Descend the loss plus ``mu / 2`` times the squared distance of the shared parameters."""
    optimizer = torch.optim.AdamW(unet.parameters(), config.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(SEED)
    start = {n: p.detach().clone() for n, p in unet.named_parameters() if is_shared(n)}
    for indices in draw_batches(len(images), config.batch_size, STEPS, generator):
        x_0 = prepare_batch(images[indices], config, generator)
        t = torch.randint(SCHEDULE.num_timesteps, (len(x_0),), generator=generator)
        epsilon = torch.randn(x_0.shape, generator=generator)
        predicted = unet(SCHEDULE.diffuse(x_0, t, epsilon), t, return_dict=False)[0]
        loss = nn.functional.mse_loss(predicted, SCHEDULE.target(x_0, t, epsilon))
        weights = dict(unet.named_parameters())
        loss = loss + MU / 2 * sum((weights[n] - start[n]).square().sum() for n in start)
        optimizer.zero_grad()
        loss.backward()
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(unet.parameters(), config.max_grad_norm)
        optimizer.step()


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_steps_are_those_of_the_loss_with_the_term(
    new_unet: NewUnet, images: Tensor, max_grad_norm: float | None
) -> None:
    ours, theirs, free = new_unet(), new_unet(), new_unet()
    shared = frozenset(name for name, _ in ours.named_parameters() if is_shared(name))
    work = LocalWork(STEPS, 0.0, 1.0, SEED, from_server=shared)
    config = settings(max_grad_norm=max_grad_norm)
    pulled = replace(work, corrections=(lambda s, _: ProximalPull(s.values(), MU),))
    train_locally(ours, images, pulled, SCHEDULE, config)
    plain_loop(theirs, images, config)
    train_locally(free, images, work, SCHEDULE, config)
    # Adam divides tiny gradients by themselves, so some coordinates amplify rounding.
    pulls, errors = [], []
    for mine, reference, without in zip(
        ours.parameters(), theirs.parameters(), free.parameters(), strict=True
    ):
        pulls.append((mine - without).detach().flatten())
        errors.append((mine - reference).detach().flatten())
    assert torch.cat(errors).norm() < 0.02 * torch.cat(pulls).norm()
