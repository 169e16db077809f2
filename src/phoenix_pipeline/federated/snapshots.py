"""Averaged weights of the global model by round, from which scores over the rounds are drawn.

Round 0 is what a federation that starts from given weights begins with.

Training writes them and nothing more. They lie with the server's checkpoints and go with them when
a run starts over; a round that is run again after a kill writes the same file again.
"""

from pathlib import Path

from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.personal_layers import samples_are_personal
from phoenix_pipeline.federated.run_state import SERVER_FOLDER, RunState

_FOLDER = "snapshots"
_PREFIX = "after-round-"


def keep_snapshot(job: FederatedJob, run: RunState) -> None:
    """Write the average after the round that ``run`` has come to, if ``job`` asks for it.

    Before round 1 these are given weights, a warm-up included; random ones say nothing.
    """
    every, done = job.config.snapshots.every, run.rounds_done
    if done == 0 and job.start is None and job.own.base is None:
        return
    if not every or samples_are_personal(job.settings.personal_layers, job.settings.model):
        return
    if done % every == 0 or done == job.config.num_rounds:
        path = run.folder / _FOLDER / f"{_PREFIX}{done:06d}.safetensors"
        save_tensors(path, run.ema, {"round": done})


def find_snapshots(checkpoints: Path) -> dict[int, Path]:
    """Return the files of an arm's folder of checkpoints by round, the earliest first."""
    files = sorted((checkpoints / SERVER_FOLDER / _FOLDER).glob(f"{_PREFIX}*.safetensors"))
    return {int(file.stem.removeprefix(_PREFIX)): file for file in files}


def read_snapshot(file: Path) -> dict[str, Tensor]:
    """Return the weights by name; raises CheckpointError for a file that is broken."""
    return load_tensors(file)[0]
