"""Images out of the update that a client would send after one step on one image."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.diffusion.dp_sgd import set_private_gradients
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.families import family_of
from phoenix_pipeline.images import GLOBAL_MODEL, to_model_range
from phoenix_pipeline.metrics.privacy.arm_audit import Reconstruction
from phoenix_pipeline.metrics.privacy.inversion import (
    KnownStep,
    client_gradient,
    likeness,
    reconstruct,
)
from phoenix_pipeline.pipelines.privacy_audit.subject import Subject
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.seeding import numpy_generator, torch_generator

if TYPE_CHECKING:
    from phoenix_pipeline.federated.records import ClientSettings


def reconstruct_images(subject: Subject, skipped: dict[str, str]) -> Reconstruction | None:
    """Return PSNR and SSIM of reconstructions, beside those of the mean training image.

    An attacker who reads nothing out of the update can still answer with the mean image. What is
    read is what reaches the server, as ``seen`` says; personal layers do not. None, and the reason
    in ``skipped``, where nothing is reconstructed.
    """
    if reason := _why_not(subject):
        skipped["reconstruction"] = reason
        return None
    from phoenix_pipeline.federated.one_step import settings_of_clients

    settings = settings_of_clients(subject.client_settings, subject.federation, subject.sizes)
    owners = subject.models()
    # Where clients have models of their own, it is these that they update.
    candidates = [
        (owner, client, row)
        for owner, clients in owners.items()
        if owner != GLOBAL_MODEL or len(owners) == 1
        for row, client in sorted(_holders(clients).items())
    ]
    generator = numpy_generator(subject.seed, "reconstructed_images")
    count = min(subject.config.reconstructions, len(candidates))
    images = []
    with progress_bar("reconstructing", count) as advance:
        for place in generator.choice(len(candidates), size=count, replace=False):
            images.append(_reconstruct_one(subject, settings, *candidates[place]))
            advance(1)
    psnr = float(np.mean([image["psnr_db"] for image in images]))
    of_mean = float(np.mean([image["mean_image_psnr_db"] for image in images]))
    scores = {"reconstruction_psnr_db": psnr, "reconstruction_mean_image_psnr_db": of_mean}
    seen = " or ".join(dict.fromkeys(image["seen"] for image in images))
    return {"scores": scores, "seen": seen, "images": images}


def _holders(clients: Mapping[int, np.ndarray]) -> dict[int, int]:
    return {int(row): client for client in sorted(clients, reverse=True) for row in clients[client]}


def _why_not(subject: Subject) -> str:
    if not subject.config.reconstructions:
        return "privacy_audit.reconstructions is 0"
    if subject.federation.pooled:
        return "no update is sent: all images lie in one place"
    if subject.metadata["settings"].get("latents"):
        return "it is made for models of pixels; this one learnt latents of an autoencoder"
    if not family_of(subject.model).predicts_noise:
        return (
            "it is made for diffusion models, whose update on one image depends on one timestep "
            "and one noise alone"
        )
    return ""


def _reconstruct_one(
    subject: Subject, settings: "ClientSettings", owner: int, client: int, row: int
) -> dict[str, Any]:
    """Return how like training image ``row`` its reconstruction and the mean image are."""
    from phoenix_pipeline.federated.one_step import step_noise, update_at_server

    network = subject.network_as_trained(owner)
    image = _as_tensor(subject.train.images[row]).to(subject.device)
    mean = _as_tensor(subject.train.images.mean(axis=0).round().astype(np.uint8))
    schedule = NoiseSchedule.from_config(subject.model.noise, subject.device)
    generator = torch_generator(subject.seed, "reconstruction", row)
    t = schedule.draw_timesteps(1, settings.training.timestep_distribution, generator)
    epsilon = torch.randn(image.shape, generator=generator)
    at, labels = subject.device, _labels(subject, row)
    known = KnownStep(schedule, t.to(at), epsilon.to(at), labels)
    weights = {name: w for name, w in network.named_parameters() if w.requires_grad}
    noise = step_noise(settings, subject.federation, subject.sizes, client)
    gradient = _gradient(subject, network, settings, noise, image, known, row)
    update = update_at_server(network, gradient, settings, client, subject.rows, row)
    sent = [name for name in weights if name in update.arrays]
    # Descent: the gradient is where the weights came from.
    found = [-update.arrays[name].to(subject.device) for name in sent]
    read = [weights[name] for name in sent]
    steps = subject.config.reconstruction_steps
    made = reconstruct(network, read, found, known, steps, generator)
    of_mean = {f"mean_image_{name}": value for name, value in asdict(likeness(mean, image)).items()}
    seen = {"seen": update.words, **asdict(likeness(made, image))}
    return {"image_index": row, "timestep": int(t), **seen, **of_mean}


def _gradient(
    subject: Subject,
    network: nn.Module,
    settings: "ClientSettings",
    noise: float | None,
    image: Tensor,
    known: KnownStep,
    row: int,
) -> dict[str, Tensor]:
    """Return the gradient that the client steps against, by name; clipped and noisy by DP-SGD."""
    weights = {name: w for name, w in network.named_parameters() if w.requires_grad}
    if noise is None:
        found = client_gradient(network, list(weights.values()), image, known)
        return dict(zip(weights, found, strict=True))
    batch = known.batch(to_model_range(image))
    generator = torch_generator(subject.seed, "reconstruction_noise", row, device=subject.device)
    set_private_gradients(network, batch, settings.training, noise, 1.0, generator)
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


def _labels(subject: Subject, row: int) -> Tensor | None:
    """Return the class [1] of training image ``row``; None for an unconditional model."""
    labels = subject.train.labels
    if subject.model.conditioning == "none" or labels is None:
        return None
    return torch.from_numpy(labels[[row]]).to(subject.device)


def _as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image)[None]
