"""What a site has released under differential privacy: its own count in a file, over all runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoenix_pipeline.checkpoints import read_json, write_json
from phoenix_pipeline.federated.privacy.accountant import epsilon_spent
from phoenix_pipeline.file_locks import locked_for_a_moment

LOCAL, DP_SGD = "local", "dp_sgd"
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Release:
    """``count`` releases of one kind with ``noise`` over sensitivity, each of a sampled share."""

    kind: str
    count: int
    noise: float
    rate: float


class SpentEpsilon:
    """The ledger ``file``; processes of several runs charge it one after another."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def kinds(self) -> frozenset[str]:
        """Return of which kinds anything was released."""
        return frozenset(self._read())

    def charge(self, release: Release, delta: float, check: Callable[[float], None]) -> None:
        """Add ``release``, unless ``check`` refuses the epsilon at ``delta`` that is reached then.

        What was spent counts at the least noise and the largest rate.

        Raises:
            StorageError, CheckpointError: the file cannot be written or read.
            BusyError: another process holds it for a minute.
        """
        with locked_for_a_moment(self._file.with_suffix(".lock"), _PATIENCE_S, needed=True):
            spent = self._read()
            unspent = {"releases": 0, "noise": release.noise, "rate": release.rate}
            before = spent.get(release.kind, unspent)
            spent[release.kind] = {
                "releases": before["releases"] + release.count,
                "noise": min(before["noise"], release.noise),
                "rate": max(before["rate"], release.rate),
            }
            check(_total(spent, delta))
            write_json(self._file, spent)

    def _read(self) -> dict[str, Any]:
        return dict(read_json(self._file)) if self._file.exists() else {}


def _total(spent: Mapping[str, Mapping[str, Any]], delta: float) -> float:
    """Return epsilon at ``delta`` of what both kinds of noise released, added up."""
    share = delta / len(spent)
    return sum(
        epsilon_spent(part["noise"], part["rate"], part["releases"], share)
        for part in spent.values()
    )
