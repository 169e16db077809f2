"""The forward process q(x_t | x_0): a batch of noisy images, its targets, its timesteps."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import NoiseConfig, TrainingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.registry import look_up

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


FLOW = "flow"


def build_scheduler(
    config: NoiseConfig, clips: bool = True
) -> "DDPMScheduler | FlowMatchEulerDiscreteScheduler":
    """Return diffusers' scheduler of the process, which travels with the exported model.

    ``clips``: samplers keep what they make of x_0 in [-1, 1], where pixels are and latents are not.
    """
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    if config.prediction_type == FLOW:
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.num_train_timesteps)
    return DDPMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=look_up(_SCHEDULES, config.schedule, "model.noise.schedule"),
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction_type,
        clip_sample=clips,
        rescale_betas_zero_snr=config.zero_terminal_snr,
    )


class Draws(NamedTuple):
    """What is random in a batch: images ``x_0`` [B, C, H, W] that may be mirrored, timesteps ``t``
    [B], noise ``epsilon`` of the images' shape, and ``labels`` [B] of a conditional network.
    """

    x_0: Tensor
    t: Tensor
    epsilon: Tensor
    labels: Tensor | None


class Batch(NamedTuple):
    """[B, C, H, W] images, int64 [B] times and labels, ``weights`` [B] of losses; None: no such."""

    x_t: Tensor
    t: Tensor
    target: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network is called with."""
        return inputs_of(self.x_t, self.t, self.labels)

    def error_of(self, unet: nn.Module) -> Tensor:
        """Return :meth:`mean_error` of what ``unet`` predicts."""
        return self.mean_error(unet(*self.inputs, return_dict=False)[0].float())

    def mean_error(self, predicted: Tensor) -> Tensor:
        """Return the mean squared error of ``predicted`` [B, C, H, W], weighted by ``weights``."""
        if self.weights is None:
            return nn.functional.mse_loss(predicted, self.target)
        return (self.weights * (predicted - self.target).square().flatten(1).mean(1)).mean()


def inputs_of(x_t: Tensor, t: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
    """Return what a network is called with: labels only where it is conditional."""
    return (x_t, t) if labels is None else (x_t, t, labels)


@dataclass(frozen=True)
class NoiseSchedule:
    """Tables of q(x_t | x_0) = N(signal_t x_0, noise_t^2 I); both float32, on one device.

    ``first``: the first timestep of training. A diffusion process has the steps 0..T-1. A flow has
    0..T, where t / T is the time of the straight path (Liu et al., arXiv 2209.03003): signal is
    1 - t / T, noise t / T, and the image itself, at 0, is no step of training.
    """

    signal: Tensor
    noise: Tensor
    prediction_type: str
    first: int = 0

    @classmethod
    def from_config(cls, config: NoiseConfig, device: torch.device | str) -> "NoiseSchedule":
        """Return the tables of ``config``, computed in float64."""
        kind = config.prediction_type
        if kind == FLOW:
            time = torch.linspace(0.0, 1.0, config.num_train_timesteps + 1, dtype=torch.float64)
            return cls((1.0 - time).float().to(device), time.float().to(device), kind, first=1)
        scheduler: Any = build_scheduler(config)
        alphas_bar = scheduler.betas.double().neg().add(1.0).cumprod(0)
        return cls(
            signal=alphas_bar.sqrt().float().to(device),
            noise=(1.0 - alphas_bar).sqrt().float().to(device),
            prediction_type=kind,
        )

    @property
    def num_timesteps(self) -> int:
        """T, the number of steps of the forward process."""
        return len(self.signal) - self.first

    def draw_timesteps(self, count: int, distribution: str, generator: torch.Generator) -> Tensor:
        """Return int64 [count] steps of training, as ``training.timestep_distribution`` says."""
        draw = look_up(_DISTRIBUTIONS, distribution, "training.timestep_distribution")
        return self.first + draw(self.num_timesteps, count, generator)

    def diffuse(self, x_0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Return x_t [N, C, H, W] of images ``x_0``, int64 steps ``t`` [N], noise ``epsilon``."""
        signal, noise = self._at(t)
        return signal * x_0 + noise * epsilon

    def target(self, x_0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Return what the network is to predict: epsilon, v (arXiv 2202.00512, appendix D), or the
        velocity epsilon - x_0 of a flow.
        """
        return self._kind.target(*self._at(t), x_0, epsilon)

    def batch(self, draws: Draws, config: TrainingConfig) -> Batch:
        """Return noisy images, timesteps, targets, classes and weights of losses."""
        x_0, t, epsilon, labels = draws
        weights = None
        if config.loss_weighting == "min_snr":
            weights = self.min_snr_weights(t, config.min_snr_gamma)
        noisy, target = self.diffuse(x_0, t, epsilon), self.target(x_0, t, epsilon)
        return Batch(noisy, t, target, labels, weights)

    def predicted_noise(self, x_t: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """Return the epsilon in ``x_t`` of which the network says ``prediction``."""
        return self._kind.noise(*self._at(t), x_t, prediction)

    def min_snr_weights(self, t: Tensor, gamma: float) -> Tensor:
        """Return the weights of the squared errors at ``t`` [N] (Hang et al., arXiv 2303.09556).

        ``min(SNR, gamma)`` times the squared error of x_0, in terms of what the network predicts.
        Raises SettingsError: of a flow.
        """
        if self._kind.snr_per_error is None:
            raise SettingsError(f"prediction_type {self.prediction_type} has no min-SNR weights")
        snr = (self.signal[t] / self.noise[t]).square()
        return snr.clamp(max=gamma) / self._kind.snr_per_error(snr)

    @property
    def _kind(self) -> "_Prediction":
        return look_up(_PREDICTIONS, self.prediction_type, "model.noise.prediction_type")

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal[t].view(-1, 1, 1, 1), self.noise[t].view(-1, 1, 1, 1)


@lru_cache(maxsize=8)
def forward_process(config: NoiseConfig, device: torch.device) -> NoiseSchedule:
    """Return the tables of ``config``, made once and not for every client and round."""
    return NoiseSchedule.from_config(config, device)


class _Prediction(NamedTuple):
    """What a network predicts, from sqrt(alpha_bar) and sqrt(1 - alpha_bar).

    ``target``: of images and noise. ``noise``: in noisy images, of the network's prediction.
    ``snr_per_error``: of the signal-to-noise ratio, a squared error of the prediction over that of
    x_0 which it leads to; None where no weights are made of it.
    """

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    noise: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    snr_per_error: Callable[[Tensor], Tensor] | None


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
    FLOW: _Prediction(
        target=lambda signal, noise, x_0, epsilon: epsilon - x_0,
        noise=lambda signal, noise, x_t, prediction: x_t + signal * prediction,
        snr_per_error=None,
    ),
}


def _draw_uniform(steps: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(steps, (count,), generator=generator, device=generator.device)


def _draw_logit_normal(steps: int, count: int, generator: torch.Generator) -> Tensor:
    """Return steps whose logits are standard normal (Esser et al., arXiv 2403.03206)."""
    drawn = torch.randn(count, generator=generator, device=generator.device).sigmoid()
    return drawn.mul(steps).long().clamp(max=steps - 1)


_DISTRIBUTIONS = {"uniform": _draw_uniform, "logit_normal": _draw_logit_normal}
