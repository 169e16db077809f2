"""Put all arms side by side: table, figures, and the HTML report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL.Image import Image

from phoenix_pipeline.config import Group
from phoenix_pipeline.framework.config_loader import ARM_GROUPS, SHARED_GROUPS
from phoenix_pipeline.images import image_grid, pick_evenly, read_samples
from phoenix_pipeline.reporting.comparison import compare_arms, format_table
from phoenix_pipeline.reporting.partition_figure import draw_partition, draw_shared_pool
from phoenix_pipeline.reporting.privacy import format_privacy
from phoenix_pipeline.reporting.privacy_figure import draw_trade
from phoenix_pipeline.reporting.report import AUDIT, render_report
from phoenix_pipeline.reporting.round_figures import draw_filter_decisions, draw_round_curves
from phoenix_pipeline.reporting.sample_figures import draw_class_histograms, draw_grids
from phoenix_pipeline.reporting.score_figures import draw_scores

logger = logging.getLogger(__name__)


def places(parameters: dict[str, Any]) -> dict[str, str]:
    """Return where to look next, and the command for each."""
    folder = parameters.get("data_root") or "data"
    return {
        "Report": f"open {folder}/08_reporting/comparison.html",
        "Runs side by side in MLflow": "make ui",
        "The flow of the data": "make viz",
    }


def compare(
    arms: tuple[str, ...],
) -> Callable[..., tuple[pd.DataFrame, str, Figure, Figure, Figure, Figure]]:
    """Return the node that compares ``arms``; its inputs are named ``<arm>__<what>``."""

    def compare_all(
        parameters: dict[str, Any], floor: dict[str, Any], partition: pd.DataFrame, **by_arm: Any
    ) -> tuple[pd.DataFrame, str, Figure, Figure, Figure, Figure]:
        def of(what: str) -> dict[str, Any]:
            return {arm: by_arm[f"{arm}__{what}"] for arm in arms}

        metrics = {arm: {"arm": arm, **scored} for arm, scored in of("metrics").items()}
        rounds, models = of("rounds"), of("model")
        settings = {arm: _complete(parameters[arm], ARM_GROUPS) for arm in arms}
        grids = {arm: _grid(file, settings[arm]) for arm, file in of("samples").items()}
        pooled = [arm for arm in arms if settings[arm]["federation"]["pooled"]]
        audits = {arm: (audit, models[arm]) for arm, audit in of("privacy").items()}
        privacy, notes = current_audits(audits)
        table = compare_arms(metrics, rounds, floor, pooled, privacy)
        judged: dict[str, Any] = next(
            filter(None, (m["class_histogram"] for m in metrics.values())), {}
        )
        histograms = draw_class_histograms(metrics, judged.get("training_shares"))
        figures = _figures(table, rounds, histograms if judged else None)
        names = judged.get("class_names", ())
        detailed = _details(partition, of("clients"), rounds, names)
        report = render_report(
            table,
            metrics,
            run=_describe(_complete(parameters, SHARED_GROUPS)),
            figures={**figures, **detailed},
            grids=grids,
            settings=settings,
            privacy=privacy,
            notes=notes,
            links=places(parameters),
        )
        curves = figures["scores"], figures["rounds"], histograms
        return table, report, *curves, draw_grids(grids)

    compare_all.__name__ = "compare_arms"
    return compare_all


def _figures(
    table: pd.DataFrame, rounds: dict[str, pd.DataFrame], histograms: Figure | None
) -> dict[str, Figure]:
    """Return the figures over all arms, by name."""
    figures = {
        "scores": draw_scores(table),
        "rounds": draw_round_curves(rounds),
        "class_histograms": histograms,
        "trade": draw_trade(table),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _details(
    partition: pd.DataFrame,
    held: dict[str, pd.DataFrame],
    rounds: dict[str, pd.DataFrame],
    class_names: Sequence[str],
) -> dict[str, Figure]:
    """Return who holds what, and what single arms have to show: pool images, filter decisions."""
    pools = {
        f"partition: {arm}, with what each client received": draw_shared_pool(table, class_names)
        for arm, table in held.items()
        if table["shared"].any()
    }
    checks = {
        f"rounds: {arm}, checks of the threshold filter": draw_filter_decisions(table)
        for arm, table in rounds.items()
        if table["score"].notna().any()
    }
    return {"partition": draw_partition(partition, class_names), **pools, **checks}


def current_audits(
    found: Mapping[str, tuple[Mapping[str, Any], Path]],
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """Return the audits of the models that are there now, and a line for each other one.

    ``found``: arm -> its ``privacy.json``, empty where it was not audited, and its model's folder.
    """
    from phoenix_pipeline.families.model_folder import weights_digest

    made = {arm: audit for arm, (audit, _) in found.items() if audit}
    current = {
        arm: audit
        for arm, audit in made.items()
        if audit["conditions"].get("weights_digest") == weights_digest(found[arm][1])
    }
    stale = [
        f"The privacy audit of {arm} is of an earlier model and is left out; run again: {AUDIT}"
        for arm in made
        if arm not in current
    ]
    for line in stale:
        logger.warning("%s", line)
    return current, stale


def announce(table: pd.DataFrame, report: str, parameters: dict[str, Any]) -> None:
    """Print the table and where to look next."""
    lines = "\n".join(f"  {label}: {command}" for label, command in places(parameters).items())
    logger.info("comparison\n%s\n\nLook next at\n%s", format_table(table), lines)
    if audited := format_privacy(table):
        logger.info("fidelity against privacy\n%s", audited)


def _grid(samples_file: Path, settings: dict[str, Any]) -> Image:
    """Return samples spread evenly over an arm's, none picked."""
    count = settings["sampling"]["grid_images"]
    return image_grid(pick_evenly(read_samples(samples_file), count))


def _describe(settings: dict[str, Any]) -> dict[str, str]:
    """Return the head of the report."""
    partition, run = settings["partition"], settings["run"]
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Seed": str(run["seed"]),
        "Clients": str(partition["num_clients"]),
        "Partition": partition["scheme"]
        + (
            f", {partition['classes_per_client']} classes per client"
            if partition["scheme"] == "pathological"
            else ""
        ),
    }


def _complete(
    parameters: Mapping[str, Any], groups: Mapping[str, type[Group]]
) -> dict[str, dict[str, Any]]:
    """Return ``groups`` with all their defaults, as plain dictionaries.

    Kedro hands a group as a model where a node of the same run asks for one, else as it is written
    in ``conf``.
    """
    return {
        name: group.model_validate(parameters[name]).model_dump(mode="json")
        for name, group in groups.items()
    }
