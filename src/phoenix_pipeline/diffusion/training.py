"""Local training of the DDPM: Algorithm 1 of arXiv 2006.11239 over one client's images."""

import time

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.dropout import set_dropout_generator
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.adam_state import adam_state, restore_adam_state
from phoenix_pipeline.optimization.learning_rate import learning_rate_at
from phoenix_pipeline.optimization.precision import autocast, gradient_scaler
from phoenix_pipeline.optimization.work import LocalResult, LocalWork, draw_batches, prepare_batch


def train_locally(
    unet: nn.Module,
    images: Tensor,
    work: LocalWork,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    optimizer_state: dict[str, Tensor] | None = None,
) -> LocalResult:
    """Train ``unet`` in place for ``work.steps`` batches drawn from ``images``.

    Args:
        unet: the network, on the device of ``images``.
        images: uint8 [N, C, H, W], resident on the training device.
        work: steps, seed, and the stretch of the run that the learning rate covers.
        schedule: the forward process, on the same device.
        config: batch size, step size, clipping, precision.
        optimizer_state: Adam's moments from :func:`adam_state`; replaced by the new ones in place.

    Raises:
        TrainingError: a loss is not finite; names the step.
    """
    started = time.perf_counter()
    parameters = list(unet.named_parameters())
    optimizer = _build_optimizer(unet, config, images.device)
    if optimizer_state:
        restore_adam_state(optimizer, parameters, optimizer_state)
    losses = _descend(unet, optimizer, images, work, schedule, config)
    if optimizer_state is not None:
        optimizer_state.clear()
        optimizer_state.update(adam_state(optimizer, parameters))
    return LocalResult(
        loss=_mean_loss(losses),
        images_trained=work.steps * config.batch_size,
        seconds=time.perf_counter() - started,
    )


def _build_optimizer(
    unet: nn.Module, config: TrainingConfig, device: torch.device
) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        unet.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def _descend(
    unet: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    work: LocalWork,
    schedule: NoiseSchedule,
    config: TrainingConfig,
) -> Tensor:
    """Make the steps; return their losses [steps] on the device, which is never waited for."""
    device = images.device
    generator = torch.Generator(device=device).manual_seed(work.seed)
    scaler = gradient_scaler(device, config)
    losses = torch.empty(work.steps, device=device)
    weights = list(unet.parameters())
    unet.train()
    set_dropout_generator(unet, generator)
    batches = draw_batches(len(images), config.batch_size, work.steps, generator)
    for step, indices in enumerate(batches):
        rate = learning_rate_at(work.progress(step), config.learning_rate, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(unet, images[indices], schedule, config, generator)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if config.max_grad_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(weights, config.max_grad_norm, foreach=True)
        scaler.step(optimizer)
        scaler.update()
        losses[step] = loss.detach()
    return losses


def _loss(
    unet: nn.Module,
    batch: Tensor,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Return the mean squared error of the prediction for one uint8 batch [B, C, H, W]."""
    x_0 = prepare_batch(batch, config, generator)
    t = torch.randint(schedule.num_timesteps, (len(x_0),), generator=generator, device=x_0.device)
    # randn_like takes no generator in torch 2.11.
    epsilon = torch.randn(x_0.shape, generator=generator, device=x_0.device)
    with autocast(x_0.device, config):
        predicted = unet(schedule.diffuse(x_0, t, epsilon), t, return_dict=False)[0]
    return nn.functional.mse_loss(predicted.float(), schedule.target(x_0, t, epsilon))


def _mean_loss(losses: Tensor) -> float:
    """Return the mean of ``losses`` [steps]; the only synchronisation with the device."""
    values = losses.cpu()
    finite = torch.isfinite(values)
    if not finite.all():
        step = int((~finite).nonzero()[0])
        raise TrainingError(
            f"the loss became {values[step].item()} at step {step + 1} of {len(values)}; lower "
            "training.learning_rate or set training.max_grad_norm"
        )
    return float(values.mean())
