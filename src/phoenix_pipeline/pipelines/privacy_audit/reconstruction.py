"""Images out of the update that a client would send after one step on one image."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.images import GLOBAL_MODEL
from phoenix_pipeline.metrics.privacy.inversion import client_gradient, likeness, reconstruct
from phoenix_pipeline.pipelines.privacy_audit.subject import Subject
from phoenix_pipeline.pipelines.progress import progress_bar
from phoenix_pipeline.seeding import numpy_generator, torch_generator


def reconstruct_images(
    subject: Subject, skipped: dict[str, str], pooled: bool
) -> dict[str, Any] | None:
    """Return PSNR and SSIM of reconstructions, beside those of the mean training image.

    An attacker who reads nothing out of the update can still answer with the mean image. Only what
    a client sends is read: not its personal layers. None, and the reason in ``skipped``, where
    nothing is reconstructed.
    """
    if reason := _why_not(subject, pooled):
        skipped["reconstruction"] = reason
        return None
    owners = {owner: np.concatenate(list(c.values())) for owner, c in subject.models().items()}
    # Where clients have models of their own, it is these that they update.
    candidates = [
        (owner, int(row))
        for owner, rows in owners.items()
        if owner != GLOBAL_MODEL or len(owners) == 1
        for row in np.unique(rows)
    ]
    generator = numpy_generator(subject.seed, "reconstructed_images")
    count = min(subject.config.reconstructions, len(candidates))
    images = []
    with progress_bar("reconstructing", count) as advance:
        for place in generator.choice(len(candidates), size=count, replace=False):
            owner, row = candidates[place]
            images.append(_reconstruct_one(subject, subject.network(owner), row))
            advance(1)
    psnr = float(np.mean([image["psnr_db"] for image in images]))
    of_mean = float(np.mean([image["mean_image_psnr_db"] for image in images]))
    scores = {"reconstruction_psnr_db": psnr, "reconstruction_mean_image_psnr_db": of_mean}
    return {"scores": scores, "images": images}


def _why_not(subject: Subject, pooled: bool) -> str:
    if not subject.config.reconstructions:
        return "privacy_audit.reconstructions is 0"
    if pooled:
        return "no update is sent: all images lie in one place"
    if subject.model.family != "diffusion":
        return (
            "it is made for diffusion models: a GAN's update depends on the generator's noise and "
            "on batch statistics of generated images as well"
        )
    return ""


def _reconstruct_one(subject: Subject, network: nn.Module, row: int) -> dict[str, Any]:
    """Return how like training image ``row`` its reconstruction and the mean image are."""
    image = _as_tensor(subject.train.images[row]).to(subject.device)
    mean = _as_tensor(subject.train.images.mean(axis=0).round().astype(np.uint8))
    schedule = NoiseSchedule.from_config(subject.model.noise, subject.device)
    generator = torch_generator(subject.seed, "reconstruction", row)
    step = int(torch.randint(schedule.num_timesteps, (), generator=generator))
    epsilon = torch.randn(image.shape, generator=generator).to(subject.device)
    sent = subject.sent(network)
    gradient = client_gradient(network, sent, schedule, image, step, epsilon)
    steps = subject.config.reconstruction_steps
    made = reconstruct(network, sent, schedule, gradient, step, epsilon, steps, generator)
    of_mean = {f"mean_image_{name}": value for name, value in asdict(likeness(mean, image)).items()}
    return {"image_index": row, "timestep": step, **asdict(likeness(made, image)), **of_mean}


def _as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image)[None]
