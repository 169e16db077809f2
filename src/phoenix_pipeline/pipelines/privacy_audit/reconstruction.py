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


def reconstruct_images(subject: Subject, skipped: dict[str, str]) -> dict[str, Any] | None:
    """Return PSNR and SSIM of reconstructions, beside those of the mean training image.

    An attacker who reads nothing out of the update can still answer with the mean image. None, and
    the reason in ``skipped``, where nothing is reconstructed.
    """
    count, metadata = subject.config.reconstructions, subject.metadata
    if not count or subject.model.family != "diffusion":
        skipped["reconstruction"] = (
            "it is made for diffusion models" if count else "privacy_audit.reconstructions is 0"
        )
        return None
    owner = GLOBAL_MODEL if metadata["has_global_model"] else metadata["clients"][0]
    owned = np.unique(np.concatenate(list(subject.models()[owner].values())))
    generator = numpy_generator(subject.seed, "reconstructed_images")
    chosen = generator.choice(owned, size=min(count, len(owned)), replace=False)
    network = subject.network(owner)
    images = []
    with progress_bar("reconstructing", len(chosen)) as advance:
        for row in chosen:
            images.append(_reconstruct_one(subject, network, int(row)))
            advance(1)
    psnr = [image["psnr_db"] for image in images]
    return {"psnr_db": float(np.mean(psnr)), "images": images}


def _reconstruct_one(subject: Subject, network: nn.Module, row: int) -> dict[str, Any]:
    """Return how like training image ``row`` its reconstruction and the mean image are."""
    image = _as_tensor(subject.train.images[row]).to(subject.device)
    mean = _as_tensor(subject.train.images.mean(axis=0).round().astype(np.uint8))
    schedule = NoiseSchedule.from_config(subject.model.noise, subject.device)
    generator = torch_generator(subject.seed, "reconstruction", row)
    step = int(torch.randint(schedule.num_timesteps, (), generator=generator))
    epsilon = torch.randn(image.shape, generator=generator).to(subject.device)
    gradient = client_gradient(network, schedule, image, step, epsilon)
    steps = subject.config.reconstruction_steps
    made = reconstruct(network, schedule, gradient, step, epsilon, steps, generator)
    of_mean = {f"mean_image_{name}": value for name, value in asdict(likeness(mean, image)).items()}
    return {"image_index": row, "timestep": step, **asdict(likeness(made, image)), **of_mean}


def _as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image)[None]
