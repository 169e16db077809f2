"""Whether a conditional model draws the class that it was asked for, according to the judge."""

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.metrics.metric import FIDELITY, ClassInputs, ClassScores, Metric


def _measure(inputs: ClassInputs) -> tuple[float]:
    if inputs.asked is None:
        raise DataError("label accuracy was asked of samples that have no labels")
    return (float((inputs.probabilities.argmax(axis=1) == inputs.asked).mean()),)


SCORES = (
    ClassScores(
        (
            Metric(
                "label_accuracy",
                "As asked",
                "share of samples of a conditional model that the label classifier takes for the "
                "class which they were to show",
                "higher",
                FIDELITY,
            ),
        ),
        _measure,
        of_labelled=True,
    ),
)
