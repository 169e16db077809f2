"""``training.compile: auto``: compile where the run is long enough to earn the compilation back."""

import logging
from dataclasses import replace

from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.work_plan import plan_steps
from phoenix_pipeline.hardware import resolve_device

logger = logging.getLogger(__name__)

# Steps of a whole run from which on compiling pays (docs/speed.md); other devices: never.
_LEAST_STEPS = {"cpu": 15_000, "cuda": 10_000}


def settle_compile(job: FederatedJob) -> FederatedJob:
    """Return ``job`` with ``training.compile`` true or false; says which was chosen and why.

    Only diffusion models in this machine's own clients are compiled: a DCGAN is too small, of the
    machines of a deployment nothing is known, and DP-SGD takes gradients image by image.
    """
    training = job.settings.training
    if training.compile != "auto":
        return job
    steps = count_steps(job)
    kind = resolve_device(job.device).type
    here = job.config.engine != "deployment" and job.settings.model.family == "diffusion"
    here = here and not training.dp_sgd.enabled
    chosen = here and kind in _LEAST_STEPS and steps >= _LEAST_STEPS[kind]
    logger.info(
        "training.compile: auto is %s: %s steps on %s; it pays from %s on",
        str(chosen).lower(),
        steps,
        kind,
        _LEAST_STEPS.get(kind, "no number") if here else "no number with these settings",
    )
    settled = training.model_copy(update={"compile": chosen})
    return replace(job, settings=job.settings.model_copy(update={"training": settled}))


def count_steps(job: FederatedJob) -> int:
    """Return the number of steps of all clients in all rounds, if as many take part as planned."""
    counts = job.client_images["client_id"].value_counts().sort_index()
    sizes = dict(zip(counts.index.tolist(), counts.tolist(), strict=True))
    if not sizes:
        return 0
    config = job.config
    per_round = sum(plan_steps(sizes, config.local_work, job.settings.training.batch_size).values())
    if config.local_work.unit != "images_per_round":
        per_round = round(per_round * config.client_fraction)
    return config.num_rounds * per_round
