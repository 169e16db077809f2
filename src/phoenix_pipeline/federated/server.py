"""Trains one arm over its clients, on the engine that the settings name."""

from pathlib import Path

from phoenix_pipeline.federated.compile_choice import settle_compile
from phoenix_pipeline.federated.engines import load_engine
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.program import Watch
from phoenix_pipeline.federated.round_teller import OnRound
from phoenix_pipeline.federated.strategy import OnReply


def train_federated(
    job: FederatedJob,
    folder: Path,
    on_round: OnRound | None = None,
    on_reply: OnReply | None = None,
) -> FederatedResult:
    """Train over the clients of ``job``; resume from ``folder`` if possible.

    Args:
        job: images, clients and settings.
        folder: checkpoints and client states of this arm.
        on_round: told each round's means, restored rounds included.
        on_reply: told every reply as it comes.

    Raises:
        FederationError: a round had too few usable replies; the last checkpoint stands.
        SettingsError: the engine cannot run with these settings, here.
    """
    train = load_engine(job.config.engine)
    return train(settle_compile(job), folder, Watch(on_round, on_reply))
