"""The forward process q(x_t | x_0) and the training target."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from phoenix_pipeline.config import NoiseConfig
from phoenix_pipeline.registry import look_up

if TYPE_CHECKING:
    from diffusers import DDPMScheduler

_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def build_scheduler(config: NoiseConfig) -> "DDPMScheduler":
    """Return diffusers' scheduler, which defines the betas and travels with the exported model."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=look_up(_SCHEDULES, config.schedule, "model.noise.schedule"),
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        clip_sample=True,
    )


@dataclass(frozen=True)
class NoiseSchedule:
    """Tables of q(x_t | x_0) = N(signal_t x_0, noise_t^2 I); both float32 [T], on one device."""

    signal: Tensor
    noise: Tensor
    prediction_type: str

    @classmethod
    def from_config(cls, config: NoiseConfig, device: torch.device | str) -> "NoiseSchedule":
        """Return the tables of ``config``, computed in float64."""
        alphas_bar = build_scheduler(config).betas.double().neg().add(1.0).cumprod(0)
        return cls(
            signal=alphas_bar.sqrt().float().to(device),
            noise=(1.0 - alphas_bar).sqrt().float().to(device),
            prediction_type=config.prediction_type,
        )

    @property
    def num_timesteps(self) -> int:
        """T, the number of steps of the forward process."""
        return len(self.signal)

    def diffuse(self, x_0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Return x_t [N, C, H, W] of images ``x_0``, int64 steps ``t`` [N], noise ``epsilon``."""
        signal, noise = self._at(t)
        return signal * x_0 + noise * epsilon

    def target(self, x_0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Return what the network is to predict: epsilon, or v (arXiv 2202.00512, appendix D)."""
        return self._kind.target(*self._at(t), x_0, epsilon)

    def predicted_noise(self, x_t: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """Return the epsilon in ``x_t`` of which the network says ``prediction``."""
        return self._kind.noise(*self._at(t), x_t, prediction)

    def min_snr_weights(self, t: Tensor, gamma: float) -> Tensor:
        """Return the weights of the squared errors at ``t`` [N] (Hang et al., arXiv 2303.09556).

        ``min(SNR, gamma)`` times the squared error of x_0, in terms of what the network predicts.
        """
        snr = (self.signal[t] / self.noise[t]).square()
        return snr.clamp(max=gamma) / self._kind.snr_per_error(snr)

    @property
    def _kind(self) -> "_Prediction":
        return look_up(_PREDICTIONS, self.prediction_type, "model.noise.prediction_type")

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)


class _Prediction(NamedTuple):
    """What a network predicts, from sqrt(alpha_bar) and sqrt(1 - alpha_bar).

    ``target``: of images and noise. ``noise``: in noisy images, of the network's prediction.
    ``snr_per_error``: of the signal-to-noise ratio, a squared error of the prediction over that of
    x_0 which it leads to.
    """

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    noise: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    snr_per_error: Callable[[Tensor], Tensor]


_PREDICTIONS = {
    "epsilon": _Prediction(
        target=lambda signal, noise, x_0, epsilon: epsilon,
        noise=lambda signal, noise, x_t, prediction: prediction,
        snr_per_error=lambda snr: snr,
    ),
    "v_prediction": _Prediction(
        target=lambda signal, noise, x_0, epsilon: signal * epsilon - noise * x_0,
        noise=lambda signal, noise, x_t, prediction: signal * prediction + noise * x_t,
        snr_per_error=lambda snr: snr + 1.0,
    ),
}
