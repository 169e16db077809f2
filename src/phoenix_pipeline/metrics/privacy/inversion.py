"""An image out of one client's update: gradient inversion (Geiping et al., arXiv 2003.14053).

The worst case: the client made one step on one image, so that its update is the gradient's
direction, and the attacker knows the timestep and the noise. In a simulation that is no
exaggeration: the server knows the seed that both are drawn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from phoenix_pipeline.diffusion.noise import Batch, NoiseSchedule
from phoenix_pipeline.images import to_model_range, to_uint8
from phoenix_pipeline.metrics.metric import PRIVACY, Metric

_STEP_SIZE = 0.1
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class Likeness:
    """PSNR for pixels 0..255, at most 100 dB, and SSIM, -1..1: 1 for the same image."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class KnownStep:
    """A client's step on one image, as the attacker knows it; all on the network's device.

    ``t``: its timestep, int64 [1]. ``epsilon``: its noise [1, C, H, W]. ``labels``: the image's
    class [1], which a conditional network's embedding shows by its row.
    """

    schedule: NoiseSchedule
    t: Tensor
    epsilon: Tensor
    labels: Tensor | None = None

    def batch(self, x_0: Tensor) -> Batch:
        """Return what the client trained on if its image was ``x_0`` [1, C, H, W] in [-1, 1]."""
        noisy = self.schedule.diffuse(x_0, self.t, self.epsilon)
        target = self.schedule.target(x_0, self.t, self.epsilon)
        return Batch(noisy, self.t, target, self.labels)


def client_gradient(
    network: nn.Module, sent: Sequence[Tensor], image: Tensor, known: KnownStep
) -> list[Tensor]:
    """Return the gradient of parameters ``sent`` at a uint8 image [1, C, H, W]; dropout off."""
    loss = known.batch(to_model_range(image)).error_of(network)
    return [g.detach() for g in torch.autograd.grad(loss, list(sent))]


def reconstruct(
    network: nn.Module,
    sent: Sequence[Tensor],
    gradient: Sequence[Tensor],
    known: KnownStep,
    num_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the uint8 image [1, C, H, W] whose gradient points most nearly along ``gradient``.

    Adam maximises the cosine between both; only the direction is used, so that gradient clipping
    and the learning rate hide nothing. ``gradient``: one array per parameter of ``sent``, as of
    :func:`client_gradient`. ``generator``: draws the first guess, on the CPU.
    """
    epsilon = known.epsilon
    guess = torch.randn(epsilon.shape, generator=generator).mul(0.3).to(epsilon.device)
    guess.requires_grad_(True)
    optimizer = torch.optim.Adam([guess], lr=_STEP_SIZE)
    schedule_lr = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    best, smallest = guess.detach().clone(), float("inf")
    # The fused attention kernels have no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(num_steps):
            loss = known.batch(guess).error_of(network)
            own = torch.autograd.grad(loss, list(sent), create_graph=True)
            mismatch = 1.0 - _cosine(own, gradient)
            if (value := float(mismatch.detach())) < smallest:
                best, smallest = guess.detach().clone(), value
            (guess.grad,) = torch.autograd.grad(mismatch, [guess])
            optimizer.step()
            schedule_lr.step()
            with torch.no_grad():
                guess.clamp_(-1.0, 1.0)
    return to_uint8(best)


def likeness(reconstruction: Tensor, image: Tensor) -> Likeness:
    """Return how like uint8 ``image`` [1, C, H, W] another of that shape is."""
    # Its import takes seconds.
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    made, true = reconstruction.float().cpu(), image.float().cpu()
    psnr = float(peak_signal_noise_ratio(made, true, data_range=255.0))
    ssim = cast(Tensor, structural_similarity_index_measure(made, true, data_range=255.0))
    return Likeness(psnr_db=min(psnr, 100.0), ssim=float(ssim))


def _cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    dot = torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
    return dot / (_norm(a) * _norm(b)).clamp_min(_SMALLEST_NORM)


def _norm(arrays: Sequence[Tensor]) -> Tensor:
    return torch.stack([array.square().sum() for array in arrays]).sum().sqrt()


SCORES = (
    Metric(
        "reconstruction_psnr_db",
        "Rebuilt",
        "likeness (PSNR, dB; 100 is the same) of images rebuilt from one client's update of one "
        "step on one image, as the server gets it: after the client's own clipping, noise and "
        "compression",
        "lower",
        PRIVACY,
    ),
    Metric(
        "reconstruction_mean_image_psnr_db",
        "Mean image",
        "the same likeness of the mean training image: what an attacker has without the update",
        group=PRIVACY,
    ),
    Metric(
        "reconstruction_seen",
        "Read",
        "what the attacker read of a client's update",
        group=PRIVACY,
        kind="text",
    ),
)
