"""What is known of one arm, as it was written: by the training, the sampling, the evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.families.provenance import TRAINED_WITH, trained_with

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


@dataclass(frozen=True)
class ArmResults:
    """The results of ``arm``; what is missing is empty.

    ``metrics``: the JSON of this name. ``rounds``, ``by_round``, ``trained_images``: tables beside
    the model. ``description``: its ``phoenix.json``. ``samples``: a file. ``classes``: rows of it
    with the judge's class. ``grid``, ``clients_figure``: pictures of samples and clients.
    ``model_card``, ``sample_card``: Markdown.
    """

    arm: str
    metrics: Mapping[str, Any]
    rounds: pd.DataFrame
    by_round: pd.DataFrame
    samples: Path
    classes: pd.DataFrame
    trained_images: pd.DataFrame
    description: Mapping[str, Any]
    grid: Path
    clients_figure: Path
    model_card: str
    sample_card: str

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the groups that the arm was made with: trained, sampled and evaluated."""
        conditions = self.metrics["conditions"]
        made = {name: conditions[name] for name in ("sampling", "evaluation")}
        return {**trained_with(self.description, self.arm), **made}

    @property
    def is_pooled(self) -> bool:
        """Whether all images lay in one place."""
        return bool(self.settings["federation"]["pooled"])

    @property
    def cards(self) -> dict[str, str]:
        """Return the cards that there are, by what they are called."""
        named = {"model card": self.model_card, "sample card": self.sample_card}
        return {label: text for label, text in named.items() if text}

    def is_current(self, result: Mapping[str, Any]) -> bool:
        """Whether ``result`` (metrics or privacy) is of the model that is there now."""
        digest = result["conditions"].get("weights_digest")
        return bool(digest == self.description["weights_digest"])


def collect(arm: str) -> Callable[..., ArmResults]:
    """Return the node that puts together what is known of ``arm``; its inputs are ``PARTS``."""

    def collect_results(**parts: Any) -> ArmResults:
        """Put together what training, sampling, evaluation and audit have left of one arm."""
        return ArmResults(arm, **parts)

    return collect_results


def gather(
    arms: tuple[str, ...], found: Mapping[str, ArmResults]
) -> tuple[list[ArmResults], list[str]]:
    """Return the arms that were scored, in their order, and a line for each that is left out.

    Those whose model does not say what it was trained with are left out: an earlier version of the
    project, or a training that was cut off, left them. ``found``: results by arm.

    Raises:
        DataError: there is none.
    """
    results = [found[arm] for arm in arms if found[arm].metrics]
    silent = [
        r.arm
        for r in results
        if TRAINED_WITH not in r.description or "evaluation" not in r.metrics["conditions"]
    ]
    if not results or len(silent) == len(results):
        raise DataError(
            f"there is nothing to compare: none of {', '.join(arms)} has scores with a model that "
            "says how it was made; run one of them: kedro run --pipelines fedavg,comparison"
        )
    told = [
        f"{arm} is left out: its model or its scores do not say how they were made; run it again: "
        f"kedro run --pipelines {arm},comparison"
        for arm in silent
    ]
    return [r for r in results if r.arm not in silent], told


def current_audits(
    results: list[ArmResults], audits: Mapping[str, Mapping[str, Any]], command: str
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """Return the audits of the models that are there now, by arm, and a line for each other one.

    ``audits``: by arm. ``command``: what audits again.
    """
    made = [result for result in results if result.arm in audits]
    stale = [r.arm for r in made if not r.is_current(audits[r.arm])]
    current = {r.arm: audits[r.arm] for r in made if r.arm not in stale}
    return current, [
        f"The privacy audit of {arm} is of an earlier model and is left out; run again: {command}"
        for arm in stale
    ]


def outdated_scores(results: list[ArmResults]) -> list[str]:
    """Return a line for each arm whose samples and scores are of an earlier model."""
    return [
        f"The samples and scores of {r.arm} are of an earlier model than the one that is there; "
        f"run again: kedro run --pipelines {r.arm},comparison"
        for r in results
        if not r.is_current(r.metrics)
    ]
