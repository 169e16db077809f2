"""Local training of the DDPM: Algorithm 1 of arXiv 2006.11239 over one client's images."""

import time
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.diffusion.batches import Condition
from phoenix_pipeline.diffusion.graphed import graphed_steps, why_not_graphed
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.steps import EagerSteps, Steps
from phoenix_pipeline.optimization.class_rows import RowsAtRest
from phoenix_pipeline.optimization.corrections import corrections_of
from phoenix_pipeline.optimization.schedules import learning_rate_at
from phoenix_pipeline.optimization.work import (
    LocalResult,
    LocalWork,
    draw_batches,
    draw_poisson_batches,
    expected_batch,
    mean_loss,
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
    """Train ``unet`` in place for ``work.steps`` batches of uint8 ``images`` [N, C, H, W].

    ``optimizer_state``: Adam's moments, replaced in place. ``condition``: classes, if any.
    Raises TrainingError: a loss is not finite; names the step.
    """
    started = time.perf_counter()
    parameters = dict(unet.named_parameters())
    # With DP-SGD every row moves, by noise: which ones do not would tell a client's classes.
    at_rest = None
    if condition and not config.dp_sgd.enabled:
        at_rest = RowsAtRest.of(parameters, condition.rows_not_held())
    unet.train()
    steps = _steps_of(unet, images, work, schedule, config, condition, optimizer_state)
    losses = descend(steps, parameters, work, config, images)
    if at_rest:
        at_rest.restore(parameters)
    if optimizer_state is not None:
        optimizer_state.clear()
        optimizer_state.update(steps.moments())
    return LocalResult(
        loss=mean_loss(losses),
        images_trained=work.steps * expected_batch(config, len(images)),
        seconds=time.perf_counter() - started,
    )


def _steps_of(
    unet: nn.Module,
    images: Tensor,
    work: LocalWork,
    schedule: NoiseSchedule,
    config: TrainingConfig,
    condition: Condition | None,
    moments: dict[str, Tensor] | None,
) -> Steps:
    """Return the client's steps: on a GPU recorded ones, where nothing rules them out."""
    if images.device.type != "cuda" or why_not_graphed(config):
        return EagerSteps(unet, images, work, schedule, config, condition, moments)
    steps = graphed_steps(unet, images, schedule, config, condition)
    steps.begin(images, condition, moments, work.seed)
    return steps


def descend(
    steps: Steps,
    parameters: Mapping[str, nn.Parameter],
    work: LocalWork,
    config: TrainingConfig,
    images: Tensor,
) -> Tensor:
    """Make the steps, corrected as ``work`` says; return their losses [steps] on the device.

    The device is never waited for.
    """
    shared = {name: own for name, own in parameters.items() if name in work.from_server}
    corrections = corrections_of(shared, work)
    losses = torch.empty(work.steps, device=images.device)
    draw = draw_poisson_batches if config.dp_sgd.enabled else draw_batches
    if work.secret_noise:
        draw = partial(draw_poisson_batches, secret=True)
    batches = draw(len(images), config.batch_size, work.steps, steps.generator)
    for step, indices in enumerate(batches):
        rate = learning_rate_at(work.progress(step), config.learning_rate, config)
        loss = steps.set_gradients(indices)
        for correction in corrections:
            correction.correct_gradients()
        steps.move(rate)
        for correction in corrections:
            correction.after_step(rate)
        losses[step] = loss
    return losses
