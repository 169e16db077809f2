"""What a sweep has on disk: a folder per cell, and in it a record for each arm that is done."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoenix_pipeline.checkpoints import read_json, write_json
from phoenix_pipeline.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import pandas as pd

# Decoded images and checkpoints are for going on; a finished cell needs neither.
_NEEDED_ONLY_WHILE_RUNNING = ("02_intermediate", "06_models/checkpoints")


@dataclass(frozen=True)
class CellFolder:
    """The data folder of one cell, laid out like ``data``."""

    path: Path

    def metrics_file(self, arm: str) -> Path:
        """Return where the arm's scores are."""
        return self.path / "08_reporting" / arm / "metrics.json"

    def samples_file(self, arm: str) -> Path:
        """Return where the arm's samples are."""
        return self.path / "07_model_output" / arm / "samples.parquet"

    def is_done(self, arm: str, digest: str) -> bool:
        """Tell whether the arm's result is there and was made by the settings of ``digest``."""
        try:
            record = read_json(self._record(arm))
        except CheckpointError:
            return False
        return record.get("settings") == digest and self.metrics_file(arm).is_file()

    def mark_done(self, digests: Mapping[str, str], seconds: float) -> None:
        """Record that the arms' results are whole, and drop what only a running cell needs."""
        for arm, digest in digests.items():
            if not self.metrics_file(arm).is_file():
                raise DataError(
                    f"{self.metrics_file(arm)} was not written by a run that ended well"
                )
            write_json(self._record(arm), {"settings": digest, "seconds": round(seconds, 1)})
        for name in _NEEDED_ONLY_WHILE_RUNNING:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def forget(self, arm: str) -> None:
        """Drop the record of an arm that is about to run again with other settings."""
        self._record(arm).unlink(missing_ok=True)

    def scores(self, arm: str) -> dict[str, Any]:
        """Return the arm's scores by name."""
        return dict(self.metrics(arm).get("scores", {}))

    def metrics(self, arm: str) -> dict[str, Any]:
        """Return the arm's ``metrics.json``."""
        return dict(read_json(self.metrics_file(arm)))

    def rounds(self, arm: str) -> "pd.DataFrame":
        """Return the arm's ``rounds.parquet``; raises DataError when it cannot be read."""
        import pandas as pd

        path = self.path / "06_models" / arm / "rounds.parquet"
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}; delete {self.path}") from error

    def _record(self, arm: str) -> Path:
        return self.path / "done" / f"{arm}.json"
