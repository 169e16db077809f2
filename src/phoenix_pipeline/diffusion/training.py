"""Local training of the DDPM: Algorithm 1 of arXiv 2006.11239 over one client's images."""

import time
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batches import Batch, draw_batch, mean_error
from phoenix_pipeline.diffusion.conditioning import Condition, RowsAtRest
from phoenix_pipeline.diffusion.dp_sgd import set_private_gradients
from phoenix_pipeline.diffusion.dropout import set_dropout_generators
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.adam_state import adam_state, restore_adam_state
from phoenix_pipeline.optimization.compilation import run_compiled
from phoenix_pipeline.optimization.corrections import Correction, corrections_of
from phoenix_pipeline.optimization.learning_rate import learning_rate_at
from phoenix_pipeline.optimization.precision import autocast, gradient_scaler
from phoenix_pipeline.optimization.work import (
    LocalResult,
    LocalWork,
    draw_batches,
    draw_poisson_batches,
)


def train_locally(
    unet: nn.Module,
    images: Tensor,
    work: LocalWork,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    optimizer_state: dict[str, Tensor] | None = None,
    condition: Condition | None = None,
) -> LocalResult:
    """Train ``unet`` in place for ``work.steps`` batches drawn from ``images``.

    Args:
        unet: the network, on the device of ``images``.
        images: uint8 [N, C, H, W], resident on the training device.
        work: steps, seed, and the stretch of the run that the learning rate covers.
        schedule: the forward process, on the same device.
        config: batch size, step size, clipping, precision.
        optimizer_state: Adam's moments from :func:`adam_state`; replaced by the new ones in place.
        condition: the classes of ``images``, for a conditional network.

    Raises:
        TrainingError: a loss is not finite; names the step.
    """
    started = time.perf_counter()
    parameters = list(unet.named_parameters())
    optimizer = build_optimizer(unet.parameters(), config, images.device)
    if optimizer_state:
        restore_adam_state(optimizer, parameters, optimizer_state)
    shared = {name: value for name, value in parameters if name in work.from_server}
    corrections = corrections_of(shared, work)
    # With DP-SGD every row moves, by noise: which ones do not would tell a client's classes.
    at_rest = None if config.dp_sgd.enabled else RowsAtRest.of(dict(parameters), condition)
    losses = _descend(unet, optimizer, images, work, schedule, config, corrections, condition)
    if at_rest:
        at_rest.restore(dict(parameters))
    if optimizer_state is not None:
        optimizer_state.clear()
        optimizer_state.update(adam_state(optimizer, parameters))
    return LocalResult(
        loss=mean_loss(losses),
        images_trained=work.steps * _expected_batch(config, len(images)),
        seconds=time.perf_counter() - started,
    )


def _expected_batch(config: TrainingConfig, num_images: int) -> int:
    """Return the images of a step; DP-SGD takes so many on average, each at most once."""
    return min(config.batch_size, num_images) if config.dp_sgd.enabled else config.batch_size


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainingConfig, device: torch.device
) -> torch.optim.AdamW:
    """Return AdamW over ``parameters``, as one kernel where the device has it."""
    return torch.optim.AdamW(
        parameters,
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
    corrections: Sequence[Correction],
    condition: Condition | None,
) -> Tensor:
    """Make the steps; return their losses [steps] on the device, which is never waited for."""
    device = images.device
    generator = torch.Generator(device=device).manual_seed(work.seed)
    scaler = gradient_scaler(device, config)
    losses = torch.empty(work.steps, device=device)
    weights = list(unet.parameters())
    unet.train()
    set_dropout_generators(unet, [generator])
    draw = draw_poisson_batches if config.dp_sgd.enabled else draw_batches
    if work.secret_noise:
        draw = partial(draw_poisson_batches, secret=True)
    batches = draw(len(images), config.batch_size, work.steps, generator)
    for step, indices in enumerate(batches):
        rate = learning_rate_at(work.progress(step), config.learning_rate, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = draw_batch(images, indices, schedule, config, condition, generator)
        if config.dp_sgd.enabled:
            optimizer.zero_grad(set_to_none=True)
            told = (work.noise_multiplier, _expected_batch(config, len(images)))
            of_noise = None if work.secret_noise else generator
            loss = set_private_gradients(unet, batch, config, *told, of_noise)
        else:
            descend = partial(_set_gradients, unet, optimizer, batch, config, scaler)
            loss = run_compiled(descend) if config.compile is True else descend()
        if corrections or config.max_grad_norm is not None:
            scaler.unscale_(optimizer)
        for correction in corrections:
            correction.correct_gradients()
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(weights, config.max_grad_norm, foreach=True)
        scaler.step(optimizer)
        scaler.update()
        for correction in corrections:
            correction.after_step(rate)
        losses[step] = loss.detach()
    return losses


def _set_gradients(
    unet: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: TrainingConfig,
    scaler: torch.amp.GradScaler,
) -> Tensor:
    """Return the mean squared error of the prediction; parameters get its scaled gradient."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(batch.x_t.device, config.precision):
        predicted = unet(*batch.inputs, return_dict=False)[0]
    loss = mean_error(predicted.float(), batch)
    scaler.scale(loss).backward()
    return loss


def mean_loss(losses: Tensor) -> float:
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
