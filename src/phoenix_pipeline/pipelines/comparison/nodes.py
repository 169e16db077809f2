"""Put all arms side by side: table, figures, and the HTML report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.families.provenance import MODEL_DESCRIPTION
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.json_files import check_content
from phoenix_pipeline.metrics.arm_metrics import ARM_METRICS
from phoenix_pipeline.reporting.arm_results import (
    ArmResults,
    LeftOut,
    add_audits,
    gather,
    outdated_scores,
)
from phoenix_pipeline.reporting.comparison import compare_arms, format_table
from phoenix_pipeline.reporting.earlier_runs import add_runs
from phoenix_pipeline.reporting.figures import figures_of_all, figures_of_arms, write_figures
from phoenix_pipeline.reporting.gallery import draw_gallery
from phoenix_pipeline.reporting.privacy import format_privacy
from phoenix_pipeline.reporting.provenance import mark_settings
from phoenix_pipeline.reporting.report import render_report
from phoenix_pipeline.reporting.sample_figures import draw_grids

logger = logging.getLogger(__name__)

# By what the nodes call it: the catalog's name of it.
PARTS = {
    "metrics": "metrics",
    "rounds": "rounds",
    "by_round": "scores_by_round",
    "samples": "samples",
    "classes": "sample_classes",
    "trained_images": "trained_images",
    "description": "model_description",
    "grid": "grid",
    "clients_figure": "clients_figure",
    "model_card": "model_card",
    "sample_card": "sample_card",
}
# Table, report, what writes a folder of figures, and a row per model that was ever compared.
Compared = tuple[pd.DataFrame, str, Callable[[Path], None], pd.DataFrame]
# Settings that may differ without a word: they change the way to a result, not the result.
_WITHOUT_EFFECT = (
    "run.arms_at_a_time",
    "run.device",
    "run.licence",
    "model.allow_download",
    "training.compile",
    "sampling.compile",
    "sampling.batch_size",
    "sampling.grid_images",
    "evaluation.batch_size",
)


def collect(arm: str) -> Callable[..., ArmResults | LeftOut]:
    """Return the node that puts together what is known of ``arm``; its inputs are ``PARTS``."""

    def collect_results(
        metrics: dict[str, Any], description: dict[str, Any], **parts: Any
    ) -> ArmResults | LeftOut:
        """Put together what training, sampling, evaluation and audit have left of one arm.

        Scores and models that an earlier version of the project made are left out, and those of a
        training that was cut off.
        """
        if not metrics:
            return LeftOut(arm)
        try:
            scored = check_content(metrics, ARM_METRICS, f"metrics.json of {arm}")
            made = check_content(description, MODEL_DESCRIPTION, f"phoenix.json of {arm}")
        except CheckpointError as error:
            return LeftOut(
                arm, f"{arm} is left out: {error}: kedro run --pipelines {arm},comparison"
            )
        pooled = made["trained_with"]["federation"]["pooled"]
        return ArmResults(arm, scored, description=made, is_pooled=pooled, **parts)

    return collect_results


def places(parameters: dict[str, Any]) -> dict[str, str]:
    """Return where to look next, and the command for each."""
    return {
        "Report": f"open {parameters['data_root']}/08_reporting/comparison.html",
        "Runs side by side in MLflow": "make ui",
        "The flow of the data": "make viz",
    }


def compare(
    parameters: dict[str, Any],
    floor: dict[str, Any],
    test_images: ImageSet,
    audits: dict[str, dict[str, Any]],
    earlier_runs: pd.DataFrame,
    **found: ArmResults | LeftOut,
) -> Compared:
    """Compare those arms of ``found`` that have scores, an input by the name of each arm."""
    from phoenix_pipeline.federated.job import WITHOUT_EFFECT

    scored, left_out = gather(found)
    audited, stale = add_audits(scored, audits)
    ignored = (*_WITHOUT_EFFECT, *(f"federation.{name}" for name in WITHOUT_EFFECT))
    results, unlike = mark_settings(audited, parameters, ignored)
    real, other = _floor(floor, results)
    notes = [*left_out, *outdated_scores(results), *stale, *other, *unlike]
    for note in notes:
        logger.warning("%s", note)
    table = compare_arms(results, real)
    # Of the first arm whose samples were judged.
    histogram = next((h for r in results if (h := r.metrics["class_histogram"])), None)
    names = histogram["class_names"] if histogram else []
    gallery, grids = draw_gallery(results, test_images, names)
    figures = figures_of_all(table, results, histogram)
    # Without classes, the figure of them says so in a file only.
    shown = {key: f for key, f in figures.items() if names or key != "class_histograms"}
    runs = add_runs(earlier_runs, table, results)
    report = render_report(
        table,
        results,
        figures={**shown, **figures_of_arms(results, names)},
        gallery=gallery,
        runs=runs,
        notes=notes,
        links=places(parameters),
    )
    figures["grids"] = draw_grids(grids)
    return table, report, write_figures(figures, results), runs


def announce(table: pd.DataFrame, parameters: dict[str, Any]) -> None:
    """Print the table and where to look next."""
    lines = "\n".join(f"  {label}: {command}" for label, command in places(parameters).items())
    logger.info("comparison\n%s\n\nLook next at\n%s", format_table(table), lines)
    if audited := format_privacy(table):
        logger.info("fidelity against privacy\n%s", audited)


def _floor(
    floor: Mapping[str, Any], results: Sequence[ArmResults]
) -> tuple[dict[str, float], list[str]]:
    conditions = [r.metrics["conditions"] for r in results]
    if not floor:
        return {}, []
    known = floor.get("conditions", {}).items()
    if known and any(all(of_arm.get(k) == value for k, value in known) for of_arm in conditions):
        return {**floor["scores"], "num_samples": floor["num_samples"]}, []
    return {}, [
        "The scores of real images are left out: they were measured with other images or settings "
        "of evaluation than those of the arms; run again: kedro run --pipelines evaluation"
    ]
