"""Put all arms side by side: table, figures, and the HTML report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS, ArmSettings
from phoenix_pipeline.families.by_image_size import settle_arm
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.privacy.arm_audit import ArmAudit
from phoenix_pipeline.pipelines.comparison.figures import (
    figures_of_all,
    figures_of_arms,
    histograms_of,
    shown_figures,
)
from phoenix_pipeline.pipelines.comparison.gallery import draw_gallery, write_figures
from phoenix_pipeline.pipelines.comparison.results import (
    ArmResults,
    LeftOut,
    current_audits,
    gather,
    outdated_scores,
)
from phoenix_pipeline.reporting.comparison import compare_arms, format_table
from phoenix_pipeline.reporting.earlier_runs import ComparedModel, add_runs, show_earlier
from phoenix_pipeline.reporting.gallery import show_growth
from phoenix_pipeline.reporting.privacy import format_privacy
from phoenix_pipeline.reporting.provenance import deviations, disagreements, experiment_facts
from phoenix_pipeline.reporting.report import AUDIT, render_report
from phoenix_pipeline.reporting.sample_figures import draw_grids

logger = logging.getLogger(__name__)

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


def places(parameters: dict[str, Any]) -> dict[str, str]:
    """Return where to look next, and the command for each."""
    return {
        "Report": f"open {parameters['data_root']}/08_reporting/comparison.html",
        "Runs side by side in MLflow": "make ui",
        "The flow of the data": "make viz",
    }


def compare(arms: tuple[str, ...]) -> Callable[..., Compared]:
    """Return the node that compares those of ``arms`` that have scores.

    An input by the name of each arm has its results.
    """

    def compare_all(
        parameters: dict[str, Any],
        floor: dict[str, Any],
        test_images: ImageSet,
        audits: dict[str, dict[str, Any]],
        earlier_runs: pd.DataFrame,
        **found: ArmResults | LeftOut,
    ) -> Compared:
        results, left_out = gather(arms, found)
        privacy, stale = current_audits(results, audits, AUDIT)
        marks, notes = _provenance(results, parameters)
        real, other = _floor(floor, results)
        notes = [*left_out, *outdated_scores(results), *stale, *other, *notes, *_audits(privacy)]
        for note in notes:
            logger.warning("%s", note)
        table = _table(results, real, privacy, marks)
        figures, histograms = figures_of_all(table, results), histograms_of(results)
        names = histograms[0]["class_names"] if histograms else []
        gallery, grids = draw_gallery(results, test_images, names)
        models = {r.arm: _model(r) for r in results if r.is_current(r.metrics)}
        runs = add_runs(earlier_runs, table, models)
        report = render_report(
            table,
            {r.arm: r.metrics for r in results},
            run=experiment_facts({r.arm: r.settings for r in results}, _num_clients(results)),
            figures={**shown_figures(figures, names), **figures_of_arms(results, names)},
            gallery=gallery,
            growth=show_growth({r.arm: r.by_round for r in results}),
            earlier=show_earlier(runs, models),
            cards={r.arm: r.cards for r in results},
            settings={r.arm: r.settings for r in results},
            disclosures={r.arm: r.description["disclosure"] for r in results},
            privacy=privacy,
            notes=notes,
            links=places(parameters),
        )
        return table, report, write_figures({**figures, "grids": draw_grids(grids)}, results), runs

    compare_all.__name__ = "compare_arms"
    return compare_all


def _table(
    results: Sequence[ArmResults],
    floor: Mapping[str, float],
    privacy: Mapping[str, ArmAudit],
    marks: Mapping[str, str],
) -> pd.DataFrame:
    metrics = {r.arm: r.metrics for r in results}
    rounds = {r.arm: r.rounds for r in results if len(r.rounds)}
    pooled = [r.arm for r in results if r.is_pooled]
    grown = {r.arm: r.by_round for r in results}
    return compare_arms(metrics, rounds, floor, pooled, privacy, marks, grown)


def announce(table: pd.DataFrame, parameters: dict[str, Any]) -> None:
    """Print the table and where to look next."""
    lines = "\n".join(f"  {label}: {command}" for label, command in places(parameters).items())
    logger.info("comparison\n%s\n\nLook next at\n%s", format_table(table), lines)
    if audited := format_privacy(table):
        logger.info("fidelity against privacy\n%s", audited)


def _provenance(
    results: Sequence[ArmResults], parameters: Mapping[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """Return arm -> the settings in which it is not of today's, and sentences on all of that."""
    from phoenix_pipeline.federated.job import WITHOUT_EFFECT

    ignored = (*_WITHOUT_EFFECT, *(f"federation.{name}" for name in WITHOUT_EFFECT))
    made = {r.arm: r.settings for r in results}
    present = {r.arm: _present(parameters, r) for r in results}
    found = deviations(made, present, ignored)
    conditions = {r.arm: r.metrics["conditions"] for r in results}
    data = {
        arm: {"train_images": of["train_images"], "test_images": of["test_images"]}
        for arm, of in conditions.items()
    }
    marks = {arm: ", ".join(each.values) for each in found for arm in each.arms}
    return marks, [*disagreements(made, data, ignored), *(each.sentence() for each in found)]


def _floor(
    floor: Mapping[str, Any], results: Sequence[ArmResults]
) -> tuple[dict[str, float], list[str]]:
    """Return what real images get; nothing, and a line, where that was measured for other arms."""
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


def _model(result: ArmResults) -> ComparedModel:
    digest = f"sha256:{result.description['weights_digest']}"
    return ComparedModel(result.description["written"], digest, result.settings)


def _num_clients(results: Sequence[ArmResults]) -> dict[str, int]:
    """Return how many clients there were, of the arms that have any: sites of a deployment too."""
    held = {r.arm: r.trained_images for r in results if not r.is_pooled}
    return {arm: table["client_id"].nunique() for arm, table in held.items() if len(table)}


def _audits(privacy: Mapping[str, ArmAudit]) -> list[str]:
    """Return a sentence for each setting in which audits that stand side by side differ."""
    groups = {
        arm: {"privacy_audit": audit["conditions"]["privacy_audit"]}
        for arm, audit in privacy.items()
    }
    return disagreements(groups, {}, ("privacy_audit.batch_size",))


def _present(parameters: Mapping[str, Any], result: ArmResults) -> dict[str, dict[str, Any]]:
    """Return the groups that this command would make the arm with, of images of its size.

    Kedro hands a group as a model where a node of the same run asks for one, else as it is written
    in ``conf``.
    """
    shared = {name: group.model_validate(parameters[name]) for name, group in SHARED_GROUPS.items()}
    own = ArmSettings.model_validate(parameters[result.arm])
    settled = settle_arm(own, result.description["settings"]["image_size"])
    groups = {**shared, **{name: getattr(settled, name) for name in ARM_GROUPS}}
    return {name: groups[name].model_dump(mode="json") for name in result.settings}
