"""Agreement with direct differences, whatever the block height."""

import numpy as np
import pytest

from phoenix_pipeline.metrics import memorization


@pytest.mark.parametrize("block_values", [1, 60, 8_000_000])
def test_nearest_distances_equal_direct_differences(
    monkeypatch: pytest.MonkeyPatch, block_values: int
):
    monkeypatch.setattr(memorization, "_BLOCK_VALUES", block_values)
    rng = np.random.default_rng(0)
    a, b = rng.normal(1e4, 1, (30, 4)), rng.normal(1e4, 1, (20, 4))
    direct = np.sort(np.linalg.norm(a[:, None] - b[None], axis=2), axis=1)
    np.testing.assert_allclose(memorization.nearest_distances(a, b, 3), direct[:, :3], rtol=1e-9)
    np.testing.assert_allclose(memorization.nearest_distances(a, b, 20), direct, rtol=1e-9)


def test_distance_of_a_float32_image_to_itself_is_almost_zero():
    images = np.random.default_rng(0).random((50, 1280), dtype=np.float32) + 100
    assert memorization.nearest_distances(images, images, 1).max() < 1e-5
