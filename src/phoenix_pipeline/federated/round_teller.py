"""What a round leaves beside its checkpoint: its means for whoever watches, averaged weights."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.config import LinkConfig
from phoenix_pipeline.federated.history import round_means, with_link_seconds
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


OnRound = Callable[[int, Mapping[str, float]], None]


class RoundTeller:
    """Tells the means of the rounds of ``run``; nothing where nobody listens.

    The last of ``num_rounds`` waits for :meth:`finish`, as clients may upload personal layers after
    it, whose bytes belong to it.
    """

    def __init__(
        self, run: RunState, link: LinkConfig, num_rounds: int, on_round: OnRound | None
    ) -> None:
        self._run = run
        self._link = link
        self._num_rounds = num_rounds
        self._on_round = on_round
        self._means_told: dict[int, dict[str, float]] = {}

    def means(self, number: int) -> dict[str, float]:
        """Return the totals and the loss of round ``number``."""
        return round_means(with_link_seconds(self._run.history.of_round(number), self._link))

    def tell(self, number: int) -> dict[str, float]:
        """Tell round ``number``, unless it is the last; return its means."""
        means = self.means(number)
        if number < self._num_rounds:
            self._tell(number, means)
        return means

    def finish(self) -> None:
        """Tell the last round, and again what changed in those before it."""
        for number in self._means_told:
            before, now = self._means_told[number], self.means(number)
            changed = {name: value for name, value in now.items() if _differs(before, name, value)}
            if changed and self._on_round:
                self._on_round(number, changed)
        if self._run.rounds_done == self._num_rounds:
            self._tell(self._num_rounds, self.means(self._num_rounds))

    def _tell(self, number: int, means: dict[str, float]) -> None:
        if self._on_round:
            self._means_told[number] = means
            self._on_round(number, means)


def _differs(before: Mapping[str, float], name: str, value: float) -> bool:
    old = before.get(name, math.nan)
    return old != value and not (math.isnan(old) and math.isnan(value))
