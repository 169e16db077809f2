"""The kernel inception distance (Binkowski et al., arXiv 1801.01401) on any features.

Ours, because importing torchmetrics or torch-fidelity takes longer than the metric; a test holds
it against torch-fidelity.
"""

import numpy as np

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.metric import FIDELITY, FeatureInputs, FeatureScores, Headline, Metric
from phoenix_pipeline.seeding import numpy_generator


def unbiased_squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased estimate of MMD^2 of ``a`` [N, D] and ``b`` [M, D], N and M >= 2.

    The kernel is (x.y / D + 1)^3 (arXiv 1801.01401, equation 2); the estimate may be negative.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    within_a, within_b = _kernel(a, a), _kernel(b, b)
    mean_a = (within_a.sum() - np.trace(within_a)) / (len(a) * (len(a) - 1))
    mean_b = (within_b.sum() - np.trace(within_b)) / (len(b) * (len(b) - 1))
    return float(mean_a + mean_b - 2.0 * _kernel(a, b).mean())


def kernel_distance(
    samples: np.ndarray, reference: np.ndarray, num_subsets: int, subset_size: int, seed: int
) -> float:
    """Return KID over random subsets, about 0 if alike; raises SettingsError."""
    largest = min(len(samples), len(reference))
    if not 2 <= subset_size <= largest:
        raise SettingsError(
            f"KID got {len(samples)} samples and {len(reference)} reference images for subsets of "
            f"{subset_size}; allowed for evaluation.kid_subset_size here is 2 to {largest}"
        )
    generator = numpy_generator(seed, "kid")
    distances = [
        unbiased_squared_mmd(
            samples[generator.choice(len(samples), subset_size, replace=False)],
            reference[generator.choice(len(reference), subset_size, replace=False)],
        )
        for _ in range(num_subsets)
    ]
    return float(np.mean(distances))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    base = a @ b.T / a.shape[1] + 1.0
    return base * base * base


def _measure(inputs: FeatureInputs) -> tuple[float]:
    config, real = inputs.config, inputs.reference.compared_features
    subsets = config.kid_subsets, config.kid_subset_size
    return (kernel_distance(inputs.features, real, *subsets, inputs.seed),)


SCORES = (
    FeatureScores(
        (
            Metric(
                "kid_",
                "KID",
                "kernel distance between the same features, without FID's small-sample bias",
                "lower",
                FIDELITY,
                headline=Headline(20, keep=3),
            ),
        ),
        _measure,
    ),
)
