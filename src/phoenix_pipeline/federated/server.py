"""Trains one arm over its clients, on the engine that the settings name; compiled where it pays."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.program import Watch
from phoenix_pipeline.federated.round_teller import OnRound
from phoenix_pipeline.federated.stacked_clients import choose_clients_at_a_time
from phoenix_pipeline.federated.strategy import OnReply
from phoenix_pipeline.federated.work_plan import plan_steps, round_size
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.optimization.compilation import STACKED, TRAINING

_ENGINES = {"in_process": "in_process", "ray": "ray_actors", "deployment": "deployment"}


def train_federated(
    job: FederatedJob,
    folder: Path,
    on_round: OnRound | None = None,
    on_reply: OnReply | None = None,
) -> FederatedResult:
    """Train over the clients of ``job``; resume from ``folder`` if possible; tell who watches.

    Raises FederationError: a round had too few usable replies; the last checkpoint stands.
    Raises SettingsError: the engine cannot run with these settings, here.
    """
    # Only the module of that engine is imported.
    engine = import_module(f"phoenix_pipeline.federated.engines.{_ENGINES[job.config.engine]}")
    result: FederatedResult = engine.train(choose_compiling(job), folder, Watch(on_round, on_reply))
    return result


def choose_compiling(job: FederatedJob) -> FederatedJob:
    """Return ``job`` with ``training.compile`` settled, and say why; never with DP-SGD."""
    training = job.settings.training
    if training.compile != "auto":
        return job
    why_not, device = _why_not(job), resolve_device(job.device)
    together = 1
    if why_not is None and job.config.engine == "in_process":
        clients = round_size(job.client_images["client_id"].nunique(), job.config)
        together = choose_clients_at_a_time(job.config, job.settings, device, clients)[0]
    break_even = STACKED if together > 1 else TRAINING
    # A step of several clients is one call of the compiled program.
    chosen = break_even.pays(count_steps(job) // together, device.type, why_not)
    settled = training.model_copy(update={"compile": chosen})
    return replace(job, settings=job.settings.model_copy(update={"training": settled}))


def _why_not(job: FederatedJob) -> str | None:
    if reason := family_of(job.settings.model).why_not_compiled:
        return reason
    if job.config.engine == "deployment":
        return "nothing is known of the machines of a deployment"
    if job.settings.training.dp_sgd.enabled:
        return "training.dp_sgd takes gradients image by image"
    return None


def count_steps(job: FederatedJob) -> int:
    """Return the number of steps of all clients in all rounds, if as many take part as planned."""
    counts = job.client_images["client_id"].value_counts().sort_index()
    sizes = dict(zip(counts.index.tolist(), counts.tolist(), strict=True))
    if not sizes:
        return 0
    config = job.config
    per_round = sum(plan_steps(sizes, config.local_work, job.settings.training.batch_size).values())
    if config.local_work.unit != "images_per_round":
        per_round = round(per_round * round_size(len(sizes), config) / len(sizes))
    return config.num_rounds * per_round
