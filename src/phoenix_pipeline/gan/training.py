"""Local training of the DCGAN: one discriminator and one generator step per batch."""

import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from phoenix_pipeline.config import DcganConfig, TrainingConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.gan.dcgan import Dcgan
from phoenix_pipeline.optimization.adam_state import adam_state, restore_adam_state
from phoenix_pipeline.optimization.class_rows import RowsAtRest, rows_not_held
from phoenix_pipeline.optimization.compilation import run_compiled
from phoenix_pipeline.optimization.corrections import Correction, corrections_of
from phoenix_pipeline.optimization.precision import autocast, gradient_scaler
from phoenix_pipeline.optimization.schedules import learning_rate_at
from phoenix_pipeline.optimization.work import LocalResult, LocalWork, draw_batches, prepare_batch

_BETA2 = 0.999


def train_locally(
    network: Dcgan,
    images: Tensor,
    work: LocalWork,
    config: DcganConfig,
    training: TrainingConfig,
    optimizer_state: dict[str, Tensor] | None = None,
    labels: Tensor | None = None,
) -> LocalResult:
    """Train both networks in place for ``work.steps`` batches drawn from ``images``.

    The loss is the non-saturating one (Goodfellow et al., arXiv 1406.2661, section 3); the reported
    ``loss`` is the generator's mean. ``training`` is honoured whole, each network's gradient being
    clipped by itself. ``images``: uint8 [N, C, H, W], resident on the training device.
    ``optimizer_state``: both networks' moments from :func:`adam_state`, named after ``generator.*``
    and ``discriminator.*``; replaced by the new ones in place. ``labels``: int64 [N], for networks
    that know classes. A batch of made images is of the classes of the real one.
    Raises TrainingError: a loss is not finite; names the network and the step.
    """
    started = time.perf_counter()
    generator = _Player.of("generator", network.generator, work, config, training)
    discriminator = _Player.of("discriminator", network.discriminator, work, config, training)
    players = (generator, discriminator)
    for player in players:
        restore_adam_state(player.optimizer, player.parameters, optimizer_state or {})
    parameters, at_rest = dict(network.named_parameters()), None
    if labels is not None:
        at_rest = RowsAtRest.of(parameters, rows_not_held(labels, network.num_classes))
    losses = _descend(generator, discriminator, images, work, config, training, labels)
    if at_rest:
        at_rest.restore(parameters)
    if optimizer_state is not None:
        optimizer_state.clear()
        for player in players:
            optimizer_state |= adam_state(player.optimizer, player.parameters)
    return LocalResult(
        loss=_mean_generator_loss(losses),
        images_trained=work.steps * training.batch_size,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Player:
    """One of the two networks, its named parameters, its optimizer and what corrects its steps."""

    network: nn.Module
    parameters: list[tuple[str, nn.Parameter]]
    optimizer: torch.optim.Optimizer
    corrections: list[Correction]

    @classmethod
    def of(
        cls,
        name: str,
        network: nn.Module,
        work: LocalWork,
        config: DcganConfig,
        training: TrainingConfig,
    ) -> "_Player":
        """Return a player with a new AdamW, which is the paper's Adam without weight decay."""
        parameters = [(f"{name}.{key}", value) for key, value in network.named_parameters()]
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=training.learning_rate,
            betas=(config.beta1, _BETA2),
            weight_decay=training.weight_decay,
            fused=parameters[0][1].device.type in ("cpu", "cuda"),
        )
        shared = {key: value for key, value in parameters if key in work.from_server}
        return cls(network, parameters, optimizer, corrections_of(shared, work))

    def step(self, loss: Tensor, scaler: torch.amp.GradScaler, max_norm: float | None) -> None:
        """Descend ``loss`` in this player's weights; the other's get no gradient."""
        weights = [parameter for _, parameter in self.parameters]
        self.optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward(inputs=weights)
        if self.corrections or max_norm is not None:
            scaler.unscale_(self.optimizer)
        for correction in self.corrections:
            correction.correct_gradients()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(weights, max_norm, foreach=True)
        scaler.step(self.optimizer)
        for correction in self.corrections:
            correction.after_step(self.optimizer.param_groups[0]["lr"])


def _descend(
    generator: _Player,
    discriminator: _Player,
    images: Tensor,
    work: LocalWork,
    config: DcganConfig,
    training: TrainingConfig,
    labels: Tensor | None,
) -> Tensor:
    """Make the steps; return the losses [steps, 2] on the device, which is never waited for."""
    device = images.device
    random = torch.Generator(device=device).manual_seed(work.seed)
    scaler = gradient_scaler(device, training)
    losses = torch.empty(work.steps, 2, device=device)
    generator.network.train()
    discriminator.network.train()
    batches = draw_batches(len(images), training.batch_size, work.steps, random)
    for step, indices in enumerate(batches):
        rate = learning_rate_at(work.progress(step), training.learning_rate, training)
        for player in (generator, discriminator):
            for group in player.optimizer.param_groups:
                group["lr"] = rate
        real = prepare_batch(images[indices], training, random)
        latent = torch.randn(len(real), config.latent_dim, 1, 1, generator=random, device=device)
        classes = () if labels is None else (labels[indices],)
        move = partial(_step, generator, discriminator, real, latent, classes, scaler, training)
        losses[step] = run_compiled(move) if training.compile is True else move()
    return losses


def _step(
    generator: _Player,
    discriminator: _Player,
    real: Tensor,
    latent: Tensor,
    classes: tuple[Tensor, ...],
    scaler: torch.amp.GradScaler,
    training: TrainingConfig,
) -> Tensor:
    """Move both networks; return losses [2], generator's first; ``classes``: labels [B]."""
    with autocast(real.device, training.precision):
        fake = generator.network(latent, *classes)
        on_real = discriminator.network(real, *classes).float()
        on_fake = discriminator.network(fake.detach(), *classes).float()
    # softplus(-x) is the cross-entropy of the logit x with the label 1, softplus(x) with 0.
    to_judge = softplus(-on_real).mean() + softplus(on_fake).mean()
    discriminator.step(to_judge, scaler, training.max_grad_norm)
    with autocast(real.device, training.precision):
        to_deceive = softplus(-discriminator.network(fake, *classes).float()).mean()
    generator.step(to_deceive, scaler, training.max_grad_norm)
    scaler.update()
    return torch.stack([to_deceive.detach(), to_judge.detach()])


def _mean_generator_loss(losses: Tensor) -> float:
    """Return the mean of the first column of [steps, 2]; the only wait for the device."""
    values = losses.cpu()
    finite = torch.isfinite(values)
    if not finite.all():
        step, column = (~finite).nonzero()[0].tolist()
        raise TrainingError(
            f"the {('generator', 'discriminator')[column]}'s loss became "
            f"{values[step, column].item()} at step {step + 1} of {len(values)}; lower "
            "training.learning_rate or set training.max_grad_norm"
        )
    return float(values[:, 0].mean())
