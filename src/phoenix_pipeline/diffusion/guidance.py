"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598): from any to one class."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phoenix_pipeline.diffusion.conditioning import null_class
from phoenix_pipeline.diffusion.unet_inference import Predict


@dataclass(frozen=True)
class Guidance:
    """How a batch of B images is predicted: ``f_null + scale (f_class - f_null)``.

    ``labels``: what the network is called with, int64 [B], or [2 B] where it is asked twice, the
    second half being the null class.
    """

    labels: Tensor
    scale: float

    @classmethod
    def of(cls, unet: nn.Module, classes: Tensor, scale: float) -> "Guidance":
        """Return what draws images of ``classes`` [B]; with scale 1 or 0 one prediction will do."""
        if scale == 1.0:
            return cls(classes, scale)
        null = torch.full_like(classes, null_class(unet))
        return cls(null if scale == 0.0 else torch.cat([classes, null]), scale)

    def guided(self, predict: Predict) -> Predict:
        """Return a prediction for x_t [B, C, H, W] from one for as many images as ``labels``."""
        if self.scale in (0.0, 1.0):
            return predict

        def predict_guided(x_t: Tensor, index: int) -> Tensor:
            of_class, of_any = predict(torch.cat([x_t, x_t]), index).float().chunk(2)
            return torch.lerp(of_any, of_class, self.scale)

        return predict_guided
