"""What is known of one arm, as it was written: by the training, the sampling, the evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.errors import CheckpointError, DataError
from phoenix_pipeline.families.provenance import MODEL_DESCRIPTION, ModelDescription
from phoenix_pipeline.json_files import check_content
from phoenix_pipeline.metrics.arm_metrics import ARM_METRICS, ArmMetrics
from phoenix_pipeline.metrics.privacy.arm_audit import ARM_AUDIT, ArmAudit

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


@dataclass(frozen=True, eq=False)
class ArmResults:
    """The results of ``arm``; what is missing is empty.

    ``metrics``: the JSON of this name. ``rounds``, ``by_round``, ``trained_images``: tables beside
    the model. ``description``: its ``phoenix.json``. ``samples``: a file. ``classes``: rows of it
    with the judge's class. ``grid``, ``clients_figure``: pictures of samples and clients.
    ``model_card``, ``sample_card``: Markdown.
    """

    arm: str
    metrics: ArmMetrics
    description: ModelDescription
    rounds: pd.DataFrame
    by_round: pd.DataFrame
    samples: Path
    classes: pd.DataFrame
    trained_images: pd.DataFrame
    grid: Path
    clients_figure: Path
    model_card: str
    sample_card: str

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the groups that the arm was made with: trained, sampled and evaluated."""
        conditions = self.metrics["conditions"]
        made = {"sampling": conditions["sampling"], "evaluation": conditions["evaluation"]}
        return {**self.description["trained_with"], **made}

    @property
    def is_pooled(self) -> bool:
        """Whether all images lay in one place."""
        return bool(self.settings["federation"]["pooled"])

    @property
    def cards(self) -> dict[str, str]:
        """Return the cards that there are, by what they are called."""
        named = {"model card": self.model_card, "sample card": self.sample_card}
        return {label: text for label, text in named.items() if text}

    def is_current(self, result: ArmMetrics | ArmAudit) -> bool:
        """Whether ``result`` is of the model that is there now."""
        return result["conditions"]["weights_digest"] == self.description["weights_digest"]


@dataclass(frozen=True)
class LeftOut:
    """An arm that cannot be compared; ``reason`` is empty where it was never scored."""

    arm: str
    reason: str = ""


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
            return ArmResults(
                arm,
                check_content(metrics, ARM_METRICS, f"metrics.json of {arm}"),
                check_content(description, MODEL_DESCRIPTION, f"phoenix.json of {arm}"),
                **parts,
            )
        except CheckpointError as error:
            return LeftOut(
                arm, f"{arm} is left out: {error}: kedro run --pipelines {arm},comparison"
            )

    return collect_results


def gather(
    arms: tuple[str, ...], found: Mapping[str, ArmResults | LeftOut]
) -> tuple[list[ArmResults], list[str]]:
    """Return the arms that were scored, in their order, and a line for each that is left out.

    ``found``: results by arm.
    Raises DataError: there is none.
    """
    each = [found[arm] for arm in arms]
    results = [result for result in each if isinstance(result, ArmResults)]
    if not results:
        raise DataError(
            f"there is nothing to compare: none of {', '.join(arms)} has scores with a model that "
            "says how it was made; run one of them: kedro run --pipelines fedavg,comparison"
        )
    return results, [left.reason for left in each if isinstance(left, LeftOut) and left.reason]


def current_audits(
    results: list[ArmResults], audits: Mapping[str, dict[str, Any]], command: str
) -> tuple[dict[str, ArmAudit], list[str]]:
    """Return the audits of the models that are there now, by arm, and lines about the others.

    ``audits``: by arm. ``command``: what audits again.
    """
    current, left_out, earlier = {}, [], []
    for result in results:
        if result.arm not in audits:
            continue
        name = f"privacy.json of {result.arm}"
        try:
            audit = check_content(audits[result.arm], ARM_AUDIT, name)
        except CheckpointError as error:
            left_out.append(f"The privacy audit of {result.arm} is left out: {error}: {command}")
            continue
        if result.is_current(audit):
            current[result.arm] = audit
        else:
            earlier.append(result.arm)
    if earlier:
        left_out.append(
            f"The privacy audit of {', '.join(earlier)} is of an earlier model and is left out; "
            f"run again: {command}"
        )
    return current, left_out


def outdated_scores(results: list[ArmResults]) -> list[str]:
    """Return a line for each arm whose samples and scores are of an earlier model."""
    return [
        f"The samples and scores of {r.arm} are of an earlier model than the one that is there; "
        f"run again: kedro run --pipelines {r.arm},comparison"
        for r in results
        if not r.is_current(r.metrics)
    ]
