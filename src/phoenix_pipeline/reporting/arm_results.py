"""What is known of one arm, as training, sampling, evaluation and audit wrote it.

It goes as one value from the arm's node ``collect`` to the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.errors import CheckpointError, DataError
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.json_files import check_content
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.metrics.privacy.arm_audit import ARM_AUDIT, ArmAudit

AUDIT_COMMAND = "kedro run --pipelines privacy_audit,comparison"


@dataclass(frozen=True, eq=False)
class ScoredArm:
    """What an arm's row of the comparison is made of; what is missing is empty.

    ``metrics``: its ``metrics.json``. ``rounds``, ``by_round``: tables beside the model. ``audit``:
    its ``privacy.json``. ``other_settings``: keys that this command has otherwise. ``is_pooled``:
    all images lay in one place, so that nothing crossed a wire.
    """

    arm: str
    metrics: ArmMetrics
    rounds: pd.DataFrame = field(default_factory=pd.DataFrame)
    by_round: pd.DataFrame = field(default_factory=pd.DataFrame)
    audit: ArmAudit | None = None
    other_settings: str = ""
    is_pooled: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class ArmResults(ScoredArm):
    """All that the page shows of an arm; what is missing is empty.

    ``description``: the ``phoenix.json``. ``samples``: a file; ``classes``: rows of it with the
    judge's class, and that which was asked for. ``trained_images``: who trained on what. ``grid``,
    ``clients_figure``: pictures of samples and clients. ``model_card``, ``sample_card``: Markdown.
    """

    description: ModelDescription
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

    def is_current(self, result: ArmMetrics | ArmAudit) -> bool:
        """Whether ``result`` is of the model that is there now."""
        return result["conditions"]["weights_digest"] == self.description["weights_digest"]


@dataclass(frozen=True)
class LeftOut:
    """An arm that cannot be compared; ``reason`` is empty where it was never scored."""

    arm: str
    reason: str = ""


def gather(
    found: Mapping[str, ArmResults | LeftOut],
) -> tuple[list[ArmResults], list[str]]:
    """Return scored arms in order, a line for each left out; raises DataError if none is."""
    results = [result for result in found.values() if isinstance(result, ArmResults)]
    if not results:
        raise DataError(
            f"there is nothing to compare: none of {', '.join(found)} has scores with a model that "
            "says how it was made; run one of them: kedro run --pipelines fedavg,comparison"
        )
    reasons = [left.reason for left in found.values() if isinstance(left, LeftOut)]
    return results, [reason for reason in reasons if reason]


def add_audits(
    results: Sequence[ArmResults], audits: Mapping[str, dict[str, Any]]
) -> tuple[list[ArmResults], list[str]]:
    """Return ``results`` with their audits, of ``audits`` by arm, and lines on others."""
    audited, left_out, earlier = [], [], []
    for result in results:
        audit = None
        if result.arm in audits:
            name = f"privacy.json of {result.arm}"
            try:
                audit = check_content(audits[result.arm], ARM_AUDIT, name)
            except CheckpointError as error:
                what = f"The privacy audit of {result.arm} is left out"
                left_out.append(f"{what}: {error}: {AUDIT_COMMAND}")
            if audit and not result.is_current(audit):
                earlier.append(result.arm)
                audit = None
        audited.append(replace(result, audit=audit))
    if earlier:
        left_out.append(
            f"The privacy audit of {', '.join(earlier)} is of an earlier model and is left out; "
            f"run again: {AUDIT_COMMAND}"
        )
    return audited, left_out


def outdated_scores(results: Sequence[ArmResults]) -> list[str]:
    """Return a line for each arm whose samples and scores are of an earlier model."""
    return [
        f"The samples and scores of {r.arm} are of an earlier model than the one that is there; "
        f"run again: kedro run --pipelines {r.arm},comparison"
        for r in results
        if not r.is_current(r.metrics)
    ]
