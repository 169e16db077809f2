"""The federation's last step, as one client sees it in two broadcasts."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.alignment import global_step
from phoenix_pipeline.optimization.work import LocalWork


def aligned_work(
    work: LocalWork,
    earlier: tuple[Mapping[str, Tensor], float],
    received: Mapping[str, Tensor],
    training: TrainingConfig,
) -> LocalWork:
    """Return ``work`` with the mean step of the federation since ``earlier``.

    A client that missed rounds takes the mean over them: the server sends it nothing more. In its
    first round a client knows no step.

    Args:
        work: this round's.
        earlier: weights of the broadcast that the client received last, and the run's progress
            then; no weights before its first round.
        received: this round's broadcast, as decoded.
        training: course of the learning rate.
    """
    before, progress = earlier
    round_length = work.progress_end - work.progress_start
    missed = round((work.progress_start - progress) / round_length) if round_length > 0.0 else 0
    if not before or missed < 1:
        return work
    span = (progress, work.progress_start)
    step = global_step(before, received, span, missed * work.steps, training)
    return replace(work, global_step=step)
