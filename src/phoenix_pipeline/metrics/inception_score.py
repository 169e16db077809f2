"""The Inception Score (Salimans et al., arXiv 1606.03498) from any classifier's probabilities."""

import numpy as np

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.metric import FIDELITY, ClassInputs, ClassScores, Metric
from phoenix_pipeline.seeding import numpy_generator

NUM_SPLITS = 10


def inception_score(
    probabilities: np.ndarray, seed: int, num_splits: int = NUM_SPLITS
) -> tuple[float, float]:
    """Return mean and deviation over splits of exp(E KL(p(y|x) || p(y))), from 1 to classes.

    Samples are shuffled first, since they may be ordered. Raises SettingsError: too few.
    """
    if len(probabilities) < 2 * num_splits:
        raise SettingsError(
            f"The Inception Score got {len(probabilities)} samples; allowed is {2 * num_splits} or "
            f"more for its {num_splits} splits; raise sampling.num_images"
        )
    order = numpy_generator(seed, "inception_score").permutation(len(probabilities))
    scores = []
    for part in np.array_split(probabilities[order].astype(np.float64), num_splits):
        marginal = part.mean(axis=0)
        # 0 log 0 is 0: a probability that underflowed contributes nothing.
        ratio = np.divide(part, marginal, out=np.ones_like(part), where=part > 0)
        scores.append(np.exp((part * np.log(ratio)).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def _measure(inputs: ClassInputs) -> tuple[float]:
    return inception_score(inputs.probabilities, inputs.seed)[:1]


SCORES = (
    ClassScores(
        (
            Metric(
                "inception_score",
                "IS",
                "Inception Score by the label classifier: samples clear one by one and varied "
                "together",
                "higher",
                FIDELITY,
            ),
        ),
        _measure,
    ),
)
