"""A score per image that is higher for images that a model was trained on, without shadow models.

The scores are those of the literature: the training loss itself (Matsumoto et al.,
arXiv 2302.03262), PIA (Kong et al., arXiv 2305.18355), SecMI (Duan et al., arXiv 2302.01316), and
for other families their own (``Family.attacks``). The attacker has the weights, as the server and
every client do.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import ModelConfig, NoiseConfig, PrivacyAuditConfig
from phoenix_pipeline.diffusion.noise import NoiseSchedule, inputs_of
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.latents.autoencoder import as_seen, shape_in
from phoenix_pipeline.seeding import torch_generator

# A network's prediction, float32 [N, C, H, W], for x_t and t [N].
Predict = Callable[[Tensor, Tensor], Tensor]
# Scores [N] of x_0 [N, C, H, W], given what the network predicts.
Attack = Callable[[Tensor, Predict], Tensor]

# Neither almost free of noise nor almost noise alone: there the losses of all images are alike.
_FIRST, _LAST = 0.02, 0.5
_PIA_NORM = 4


def membership_scores(
    network: nn.Module,
    model: ModelConfig,
    images: np.ndarray,
    config: PrivacyAuditConfig,
    seed: int,
    labels: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores [N] of uint8 ``images`` [N, C, H, W] by attack.

    Args:
        network: as trained; its device is used. One that learnt latents is attacked with those of
            the images.
        model: its family, and the forward process it was trained with.
        images: an image's score does not depend on the others.
        config: timesteps and batch size.
        seed: of the noise.
        labels: int64 [N], which the attacker knows; a conditional model needs them.
    """
    family, device = family_of(model), next(network.parameters()).device
    attacks: dict[str, Attack] = {}
    if family.predicts_noise:
        shape = shape_in(network, images.shape[1:])
        attacks |= _attacks_on_noise(model.noise, shape, config, seed, device)
    conditional = model.conditioning == "labels" and labels is not None
    parts: dict[str, list[Tensor]] = {name: [] for name in (*family.attacks, *attacks)}
    with _evaluating(network):
        for start in range(0, len(images), config.batch_size):
            batch = torch.from_numpy(
                np.ascontiguousarray(images[start : start + config.batch_size])
            )
            x_0, classes = as_seen(network, batch.to(device)), None
            if conditional and labels is not None:
                classes = torch.from_numpy(labels[start : start + len(batch)]).to(device)
            for name, own in family.attacks.items():
                parts[name].append(own(network, x_0, classes).float().cpu())
            for name, attack in attacks.items():
                parts[name].append(attack(x_0, predictor(network, classes)).float().cpu())
    return {name: torch.cat(values).double().numpy() for name, values in parts.items()}


def _attacks_on_noise(
    noise: NoiseConfig,
    image_shape: tuple[int, ...],
    config: PrivacyAuditConfig,
    seed: int,
    device: torch.device,
) -> dict[str, Attack]:
    """Return the attacks on what a diffusion model predicts."""
    schedule = NoiseSchedule.from_config(noise, device)
    noises = fixed_noises(image_shape, config.timesteps, seed, device)
    timesteps = loss_timesteps(noise, config.timesteps)
    step = int(config.attack_timestep * noise.num_train_timesteps)
    walk = secmi_timesteps(noise, config.secmi_timestep, config.secmi_interval)
    return {
        "loss": lambda x_0, predict: -denoising_loss(predict, schedule, x_0, timesteps, noises),
        "pia": lambda x_0, predict: -pia_distance(predict, schedule, x_0, step),
        "secmi": lambda x_0, predict: -secmi_error(predict, schedule, x_0, walk),
    }


def predictor(network: nn.Module, labels: Tensor | None = None) -> Predict:
    """Return what predicts for x_t at t [N]; ``labels`` [N]: of a conditional network's images."""

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        prediction: Tensor = network(*inputs_of(x_t, t, labels), return_dict=False)[0]
        return prediction.float()

    return predict


def loss_timesteps(noise: NoiseConfig, count: int) -> list[int]:
    """Return ``count`` timesteps spread evenly from 2 % to 50 % of T."""
    last = noise.num_train_timesteps - 1
    return [round(float(fraction) * last) for fraction in np.linspace(_FIRST, _LAST, count)]


def fixed_noises(
    shape: tuple[int, ...], count: int, seed: int, device: torch.device
) -> list[Tensor]:
    """Return ``count`` noises [1, C, H, W], the same for every image and every model."""
    return [
        torch.randn((1, *shape), generator=torch_generator(seed, "membership", i)).to(device)
        for i in range(count)
    ]


def denoising_loss(
    predict: Predict,
    schedule: NoiseSchedule,
    x_0: Tensor,
    timesteps: list[int],
    noises: list[Tensor],
) -> Tensor:
    """Return each image's training loss [N], averaged over pairs of timestep and noise."""
    total = torch.zeros(len(x_0), device=x_0.device)
    for step, noise in zip(timesteps, noises, strict=True):
        t = torch.full((len(x_0),), step, device=x_0.device)
        epsilon = noise.expand_as(x_0)
        predicted = predict(schedule.diffuse(x_0, t, epsilon), t)
        squared = (predicted - schedule.target(x_0, t, epsilon)).square()
        total += squared.flatten(1).mean(dim=1)
    return total / len(timesteps)


def pia_distance(predict: Predict, schedule: NoiseSchedule, x_0: Tensor, step: int) -> Tensor:
    """Return each image's proximal initialisation distance [N] (arXiv 2305.18355, eq. 9).

    The noise that the network sees in the clean image is put on it up to timestep ``step``; the
    distance is the 4-norm of that noise minus the noise that the network then sees.
    """
    begin = torch.full((len(x_0),), schedule.first, device=x_0.device)
    first = _predicted_noise(predict, schedule, x_0, begin)
    t = torch.full_like(begin, step)
    second = _predicted_noise(predict, schedule, schedule.diffuse(x_0, t, first), t)
    return torch.linalg.vector_norm((first - second).flatten(1), ord=_PIA_NORM, dim=1)


def secmi_timesteps(noise: NoiseConfig, timestep: float, interval: float) -> list[int]:
    """Return the timesteps 0, k, 2k, ..., t, t + k of SecMI's walk, all below T.

    Args:
        noise: T.
        timestep: t as a fraction of T, rounded down to a multiple of k, one at the least.
        interval: k as a fraction of T, one timestep at the least.

    Raises SettingsError: T is too small for one step there and one beyond.
    """
    total = noise.num_train_timesteps
    k = max(1, round(interval * total))
    last = max(1, round(timestep * total) // k) * k
    if last + k >= total:
        raise SettingsError(
            f"privacy_audit.secmi_timestep {timestep:g} and secmi_interval {interval:g} lead to "
            f"timestep {last + k} of {total}; together they must stay below 1"
        )
    return [*range(0, last + 1, k), last + k]


def secmi_error(
    predict: Predict, schedule: NoiseSchedule, x_0: Tensor, timesteps: list[int]
) -> Tensor:
    """Return each image's t-error [N], SecMI's statistic (arXiv 2302.01316, eqs. 8 to 11).

    The image is taken to noise by deterministic DDIM steps up to the timestep before the last of
    ``timesteps``, one step further and back again; the error is the squared distance by which that
    misses. In the paper t = 100 and k = 10 of 1000.
    """
    *walk, beyond = timesteps
    x_t = x_0
    for start, end in itertools.pairwise(walk):
        x_t = _ddim_step(predict, schedule, x_t, start, end)
    there = _ddim_step(predict, schedule, x_t, walk[-1], beyond)
    back = _ddim_step(predict, schedule, there, beyond, walk[-1])
    return (back - x_t).square().flatten(1).sum(dim=1)


def _ddim_step(
    predict: Predict, schedule: NoiseSchedule, x: Tensor, start: int, end: int
) -> Tensor:
    """Return ``x`` at timestep ``end``: the image and the noise that the network sees in it."""
    t = torch.full((len(x),), start, device=x.device)
    epsilon = _predicted_noise(predict, schedule, x, t)
    x_0 = (x - schedule.noise[start] * epsilon) / schedule.signal[start]
    return schedule.diffuse(x_0, torch.full_like(t, end), epsilon)


def _predicted_noise(predict: Predict, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the network's epsilon; from v it is signal v + noise x_t (arXiv 2202.00512)."""
    return schedule.predicted_noise(x_t, t, predict(x_t, t))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)
