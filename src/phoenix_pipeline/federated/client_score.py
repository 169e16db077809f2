"""The score of a client's own model, which it sends to a server that filters clients."""

import logging
import math

import numpy as np
import torch

from phoenix_pipeline.config import SamplingConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.families.classes import spread_labels
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.sites import Site
from phoenix_pipeline.federated.workbench import Bench
from phoenix_pipeline.metrics.monitoring import MonitorReference, monitor_score
from phoenix_pipeline.seeding import image_seeds

logger = logging.getLogger(__name__)


def score_own_model(
    reference: MonitorReference,
    settings: ClientSettings,
    site: Site,
    bench: Bench,
    server_round: int,
) -> float:
    """Return how far samples of the client's own model, as just trained, are from real images.

    A model that cannot be sampled has no score: NaN, which is a strike.
    """
    bench.put_into_network()
    count = settings.monitor_samples
    seeds = list(image_seeds(settings.seed, "monitor", count, site.client_id, server_round))
    shape = (settings.channels, settings.image_size, settings.image_size)
    sampling = SamplingConfig(num_images=count, batch_size=count, num_steps=settings.monitor_steps)
    labels = None
    if settings.class_names and site.labels is not None:
        held = torch.bincount(site.labels, minlength=len(settings.class_names))
        labels = spread_labels(held.cpu().numpy(), count).tolist()
    batches = bench.family.sample_images(
        bench.network, settings.model, sampling, shape, seeds, site.images.device, labels=labels
    )
    try:
        return monitor_score(np.concatenate(list(batches)), reference)
    except TrainingError as error:
        logger.warning("client %s cannot be scored: %s", site.client_id, error)
        return math.nan
