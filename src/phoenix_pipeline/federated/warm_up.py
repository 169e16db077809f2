"""Warm-up of the global model on the shared pool, before the first round (arXiv 1806.00582)."""

import logging

import torch
from torch import nn

from phoenix_pipeline.config import DpSgdConfig
from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.round_table import SERVER, WARM_UP_ROUND, Row, new_row
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.seeding import derive_seed

logger = logging.getLogger(__name__)


def warm_up(network: nn.Module, job: FederatedJob, device: torch.device) -> Row:
    """Train ``network`` in place for ``job.warmup_steps`` on the pool; return the round's row.

    The learning rate stays at its peak: its schedule belongs to the rounds.
    """
    if job.pool is None:
        raise ValueError("a warm-up needs a pool")
    settings = job.settings
    peak, labels = settings.training.lr_warmup, None
    if settings.class_names and job.images.labels is not None:
        labels = torch.from_numpy(job.images.labels[job.pool]).to(device)
    result = family_of(settings.model).train_locally(
        network.to(device),
        torch.from_numpy(job.images.images[job.pool]).to(device),
        LocalWork(job.warmup_steps, peak, peak, derive_seed(settings.seed, "warm_up")),
        settings.model,
        # The pool was given away before: noise would hide nothing of it.
        settings.training.model_copy(update={"dp_sgd": DpSgdConfig()}),
        labels=labels,
    )
    logger.info("warm-up on %s pool images: loss %.4f", len(job.pool), result.loss)
    return new_row(WARM_UP_ROUND, SERVER, len(job.pool)) | {
        "images_trained": result.images_trained,
        "loss": result.loss,
        "seconds": result.seconds,
    }
