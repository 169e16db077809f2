"""The networks that the label judge can have."""

import pytest
import torch

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.metrics.judge_networks import build_judge_network


@pytest.mark.parametrize("network", ["residual", "pooled"])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 33)])
def test_features_and_logits_have_the_documented_shapes(
    network: str, channels: int, side: int
) -> None:
    config = ClassifierConfig(network=network, channels=8)
    built = build_judge_network(channels, side, 7, config).eval()
    images = torch.randint(0, 256, (3, channels, side, side), dtype=torch.uint8)
    with torch.no_grad():
        assert built.features(images).shape == (3, 32)
        assert built(images).shape == (3, 7)


def test_convolutions_begin_by_handing_their_input_on() -> None:
    stages = build_judge_network(1, 16, 10, ClassifierConfig(network="pooled", channels=8)).stages
    x = torch.rand((2, 8, 6, 6))
    torch.testing.assert_close(stages[1].conv1(x)[:, :8], x)


@pytest.mark.parametrize("network", ["residual", "pooled"])
def test_features_are_means_over_places(network: str) -> None:
    config = ClassifierConfig(network=network, channels=4)
    built = build_judge_network(1, 8, 2, config).eval()
    flat = torch.full((1, 1, 32, 32), 90, dtype=torch.uint8)
    wide = torch.full((1, 1, 32, 64), 90, dtype=torch.uint8)
    with torch.no_grad():
        inner, longer = built.features(flat), built.features(wide)
    # Twice the places of the same colour: the mean moves only by the borders' share.
    assert (longer - inner).abs().max() < 0.3 * inner.abs().max()
