"""``kedro claims``: the paper's figures and claims, computed from the cells of a sweep."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.datasets import file_of
from phoenix_pipeline.framework.sweeps.plan import Sweep
from phoenix_pipeline.framework.sweeps.results import collect, track
from phoenix_pipeline.images import image_grid, pick_evenly, read_samples
from phoenix_pipeline.reporting.claims import PARTITION, SEED, render_claims
from phoenix_pipeline.reporting.sample_figures import draw_grids, draw_sorted_classes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

SWEEP = "claims"
_GRID_IMAGES = 64


def write_claims(sweep: Sweep) -> Path:
    """Write ``claims.md`` and its figures; raises SettingsError without axes of both kinds."""
    for axis in (PARTITION, SEED):
        if axis not in sweep.config.grid:
            raise SettingsError(
                f"the claims need an axis {axis}; conf/sweeps/{SWEEP}.yml has "
                f"{', '.join(sweep.config.grid)}"
            )
    folder = sweep.project / sweep.data_root / "08_reporting" / sweep.name
    table = collect(sweep)
    files: list[Path] = []
    captions = {}
    for name, (caption, draw) in _figures(sweep, table).items():
        files.append(folder / f"{name}.png")
        file_of(files[-1]).save(draw())
        captions[caption] = files[-1].name
    document = folder / "claims.md"
    text = render_claims(table, captions)
    file_of(document).save(text)
    track(sweep, [document, *files], "report")
    logger.info("the claims: %s", document)
    return document


def _figures(sweep: Sweep, table: "pd.DataFrame") -> "dict[str, tuple[str, Callable[[], Figure]]]":
    shares, training = _class_shares(sweep)
    figures: dict[str, tuple[str, Callable[[], Figure]]] = {}
    if shares:
        figures["sorted_classes"] = (
            "Sorted class distributions, mean and spread over the seeds (Figures 4 and 5)",
            lambda: draw_sorted_classes(shares, training),
        )
    seed = table[SEED].min()
    for partition in dict.fromkeys(table[PARTITION]):
        grids = _grids(sweep, partition, seed)
        if grids:
            figures[f"samples_{partition}"] = (
                f"Samples, {partition}, seed {seed} (Figure 6)",
                lambda grids=grids: draw_grids(grids),  # type: ignore[misc]
            )
    return figures


def _class_shares(
    sweep: Sweep,
) -> tuple[dict[str, dict[str, list[list[float]]]], list[float] | None]:
    """Return partition -> arm -> class shares of each seed, and those of the training images."""
    shares: dict[str, dict[str, list[list[float]]]] = {}
    training = None
    for cell in sweep.cells:
        missing = sweep.missing(cell)
        for arm in sweep.config.pipelines:
            histogram = arm not in missing and sweep.folder(cell).metrics(arm)["class_histogram"]
            if histogram:
                runs = shares.setdefault(cell.labels[PARTITION], {}).setdefault(arm, [])
                runs.append(histogram["shares"])
                training = histogram.get("training_shares")
    return shares, training


def _grids(sweep: Sweep, partition: str, seed: int) -> dict[str, Image]:
    for cell in sweep.cells:
        if cell.labels[PARTITION] == partition and cell.values[SEED] == seed:
            missing, folder = sweep.missing(cell), sweep.folder(cell)
            return {
                arm: image_grid(pick_evenly(read_samples(folder.samples_file(arm)), _GRID_IMAGES))
                for arm in sweep.config.pipelines
                if arm not in missing
            }
    return {}
