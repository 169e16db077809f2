"""What a sweep consists of: its cells, and what is known of those that ran before."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phoenix_pipeline.errors import CheckpointError, DataError
from phoenix_pipeline.framework.paths import SWEEPS
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.framework.sweeps.cells import Cell, arm_digests, expand
from phoenix_pipeline.framework.sweeps.settings import SweepConfig, load_sweep
from phoenix_pipeline.json_files import read_json, write_json
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics, read_metrics

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

    def metrics(self, arm: str) -> ArmMetrics:
        """Return the arm's ``metrics.json``; raises CheckpointError when it cannot be read."""
        return read_metrics(self.metrics_file(arm))

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


@dataclass(frozen=True)
class Sweep:
    """``digests``: cell -> arm -> hash of its settings; ``data_root`` is relative to ``project``
    unless the user made it absolute.
    """

    name: str
    config: SweepConfig
    env: str | None
    cells: tuple[Cell, ...]
    digests: dict[str, dict[str, str]]
    project: Path
    data_root: Path

    @property
    def data(self) -> Path:
        """The folder that holds the cells' folders."""
        return self.project / self.data_root / SWEEPS / self.name

    @property
    def reporting(self) -> Path:
        """The folder that tables and figures go to."""
        return self.project / self.data_root / "08_reporting" / SWEEPS / self.name

    @property
    def references_root(self) -> Path:
        """The folder of the label judge and the reference statistics, which all cells share."""
        return self.data_root / SWEEPS / self.name

    def cell_root(self, cell: Cell) -> Path:
        """Return the cell's ``data_root``."""
        return self.references_root / cell.name

    def folder(self, cell: Cell) -> CellFolder:
        """Return the cell's folder."""
        return CellFolder(self.data / cell.name)

    def missing(self, cell: Cell) -> tuple[str, ...]:
        """Return the arms of the cell that have no result by its present settings."""
        digests, folder = self.digests[cell.name], self.folder(cell)
        return tuple(arm for arm in self.config.pipelines if not folder.is_done(arm, digests[arm]))


def prepare_sweep(project: Path, name: str, env: str | None = None) -> Sweep:
    """Read a sweep and check every cell before the first runs; raises SettingsError."""
    conf = project / "conf"
    config = load_sweep(conf, name, env)
    cells = tuple(expand(config))
    used = env or config.env or os.environ.get("KEDRO_ENV")
    digests = {
        cell.name: arm_digests(conf, used, cell.parameters, config.pipelines) for cell in cells
    }
    apart = env is not None and env != config.env
    return Sweep(
        name=f"{name}-{env}" if apart else name,
        config=config,
        env=used,
        cells=cells,
        digests=digests,
        project=project,
        data_root=Path(open_config(project, used).data_root),
    )
