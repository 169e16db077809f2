"""What a sweep ends in: a table, its summary, heat maps, and one MLflow run that holds them."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from phoenix_pipeline.config.base import flatten
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.framework.datasets import file_of
from phoenix_pipeline.framework.mlflow_runs import SESSION, SessionRuns
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.framework.sweeps.plan import Sweep
from phoenix_pipeline.framework.sweeps.settings import ARM
from phoenix_pipeline.framework.tracking import is_tracked, read_tracking_config
from phoenix_pipeline.reporting.arm_results import ScoredArm
from phoenix_pipeline.reporting.score_figures import draw_frontier, draw_heatmap, frontier_table
from phoenix_pipeline.reporting.sweep_tables import cell_table, join_cells, latex_summary, summarize

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


def collect(sweep: Sweep) -> "pd.DataFrame":
    """Return one row per cell and arm that is done; raises DataError when there is none."""
    tables = []
    for cell in sweep.cells:
        missing, folder = sweep.missing(cell), sweep.folder(cell)
        done = [
            ScoredArm(arm, folder.metrics(arm), folder.rounds(arm))
            for arm in sweep.config.pipelines
            if arm not in missing
        ]
        if done:
            tables.append(cell_table(cell.name, cell.values, done))
    if not tables:
        raise DataError(f"the sweep {sweep.name} has no result yet: no cell under {sweep.data}")
    return join_cells(tables)


def publish(sweep: Sweep, table: "pd.DataFrame") -> list[Path]:
    """Write table, summary, heat maps and frontier; return the files."""
    config = sweep.config
    summary = summarize(table, config.repeated_axes, config.metrics)
    files = []
    for name, content in (("cells", table), ("summary", summary)):
        files.append(sweep.reporting / f"{name}.csv")
        file_of(files[-1]).save(content)
    files.append(sweep.reporting / "summary.tex")
    file_of(files[-1]).save(latex_summary(summary))
    for name, (rows, columns, values, part) in _heat_maps(sweep, table).items():
        files.append(sweep.reporting / f"{name}.png")
        file_of(files[-1]).save(draw_heatmap(part, rows, columns, values))
    return files + _publish_frontier(sweep, table)


def _publish_frontier(sweep: Sweep, table: "pd.DataFrame") -> list[Path]:
    """Write the frontier of each arm, where one is asked for and its baseline is done."""
    shape = sweep.config.frontier
    files: list[Path] = []
    if shape is None:
        return files
    for arm, part in table.groupby(ARM, sort=False):
        if shape.baseline not in set(part[shape.axis].astype(str)):
            logger.warning("%s of %s is not done yet: no frontier", shape.baseline, arm)
            continue
        content = frontier_table(part, shape.axis, shape.baseline, shape.cost, shape.scores)
        base = sweep.reporting / f"frontier_{arm}"
        files += [base.with_suffix(".csv"), base.with_suffix(".png")]
        file_of(files[-2]).save(content)
        figure = draw_frontier(content, shape.axis, shape.baseline, shape.cost, shape.scores)
        file_of(files[-1]).save(figure)
    return files


def _heat_maps(
    sweep: Sweep, table: "pd.DataFrame"
) -> dict[str, tuple[str, str, str, "pd.DataFrame"]]:
    shape = sweep.config.heat_map
    if shape is None:
        return {}
    maps = {}
    for metric in sweep.config.metrics:
        if metric not in table.columns or table[metric].isna().all():
            logger.warning("no cell has the score %s: no heat map of it", metric)
        elif ARM in (shape.x, shape.y):
            maps[f"heat_map_{metric}"] = (shape.y, shape.x, metric, table)
        else:
            for arm, part in table.groupby(ARM, sort=False):
                maps[f"heat_map_{arm}_{metric}"] = (shape.y, shape.x, metric, part)
    return maps


def track(sweep: Sweep, files: list[Path], title: str = "sweep") -> None:
    """Open one MLflow run, ``<title> <name>``, for the sweep as a whole, with these files."""
    config = read_tracking_config(open_config(sweep.project, sweep.env))
    if not is_tracked(config):
        return
    name = f"{title} {sweep.name}"
    runs = SessionRuns.start(config, sweep.project, {"sweep": sweep.name}, name)
    runs.log_params(SESSION, {"sweep": sweep.name, **dict(flatten(sweep.config))})
    for file in files:
        runs.log_artifact(SESSION, file, "")
    runs.finish("FINISHED")
