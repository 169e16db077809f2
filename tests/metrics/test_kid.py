"""Hand-computed kernels and torch-fidelity's estimate."""

import numpy as np
import pytest
import torch

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.kid import kernel_distance, unbiased_squared_mmd


def normal(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, 6)).astype(np.float32)


def test_hand_computed_squared_mmd():
    a, b = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    within_a, within_b = (0 * 1 + 1) ** 3, (2 * 3 + 1) ** 3
    across = (1 + 1 + (2 + 1) ** 3 + (3 + 1) ** 3) / 4
    assert unbiased_squared_mmd(a, b) == pytest.approx(within_a + within_b - 2 * across)


def test_equals_torch_fidelity_on_the_same_subset():
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = normal(0, 50), normal(1, 50, 0.3)
    theirs = kid_features_to_metric(
        torch.from_numpy(a).double(),
        torch.from_numpy(b).double(),
        kid_subsets=3,
        kid_subset_size=50,
        verbose=False,
    )["kernel_inception_distance_mean"]
    ours = kernel_distance(a, b, num_subsets=3, subset_size=50, seed=0)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_is_unbiased_seeded_and_grows_with_the_shift():
    a, b, shifted = normal(2, 2000), normal(3, 2000), normal(4, 2000, 0.5)
    same = kernel_distance(a, b, num_subsets=100, subset_size=50, seed=0)
    assert abs(same) < 0.01
    assert same == kernel_distance(a, b, num_subsets=100, subset_size=50, seed=0)
    assert same != kernel_distance(a, b, num_subsets=100, subset_size=50, seed=1)
    assert kernel_distance(a, shifted, num_subsets=10, subset_size=50, seed=0) > 1.0


@pytest.mark.parametrize("subset_size", [1, 31])
def test_refuses_subsets_that_do_not_fit(subset_size: int):
    with pytest.raises(SettingsError, match=r"allowed .* is 2 to 30"):
        kernel_distance(normal(0, 30), normal(1, 40), 5, subset_size, seed=0)
