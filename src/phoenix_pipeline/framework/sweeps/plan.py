"""A sweep ready to run: its cells, where each one's data go, and the hashes of their settings."""

import os
from dataclasses import dataclass
from pathlib import Path

from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.framework.sweeps.cells import Cell, arm_digests, expand
from phoenix_pipeline.framework.sweeps.settings import FOLDER, SweepConfig, load_sweep
from phoenix_pipeline.framework.sweeps.store import CellFolder


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
        return self.project / self.data_root / FOLDER / self.name

    @property
    def reporting(self) -> Path:
        """The folder that tables and figures go to."""
        return self.project / self.data_root / "08_reporting" / FOLDER / self.name

    @property
    def references_root(self) -> Path:
        """The folder of the label judge and the reference statistics, which all cells share."""
        return self.data_root / FOLDER / self.name

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
    """Read ``conf/sweeps/<name>.yml`` and check every cell's settings before the first one runs.

    ``env`` replaces the sweep's own environment; its results then lie apart from the sweep's.
    Raises SettingsError for whatever is wrong.
    """
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
