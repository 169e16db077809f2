"""The networks that the label judge can have."""

import pytest
import torch

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.judge_networks import build_judge_network

AIRBENCH = ClassifierConfig(network="airbench", channels=8)


def photographs() -> torch.Tensor:
    """Return uint8 [64, 3, 16, 16] whose neighbouring pixels and channels are alike."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((64, 1, 6, 6), generator=generator).expand(-1, 3, -1, -1)
    smooth = torch.nn.functional.interpolate(coarse, size=16, mode="bicubic")
    noise = 0.1 * torch.randn((64, 3, 16, 16), generator=generator)
    return ((smooth + noise).clamp(0, 1) * 255).byte()


def test_filters_whiten_the_patches_and_come_with_their_negatives() -> None:
    network = build_judge_network(3, 16, 10, AIRBENCH)
    images = photographs()
    network.adapt(images)
    weight = network.whiten.weight
    assert weight.shape == (24, 3, 2, 2)
    assert torch.equal(weight[:12], -weight[12:])
    with torch.no_grad():
        found = torch.nn.functional.conv2d(network.scaled(images), weight[:12])
    rows = found.permute(0, 2, 3, 1).reshape(-1, 12)
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(12), atol=0.05, rtol=0)


def test_filters_stay_and_the_rest_learns() -> None:
    network = build_judge_network(3, 16, 10, AIRBENCH)
    fixed = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert fixed == ["whiten.weight"]


def test_convolutions_begin_by_handing_their_input_on() -> None:
    stage = build_judge_network(1, 16, 10, AIRBENCH).stages[1]
    x = torch.rand((2, 8, 6, 6))
    torch.testing.assert_close(stage.conv1(x)[:, :8], x)


@pytest.mark.parametrize("network", ["residual", "airbench"])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_and_logits_have_the_documented_shapes(network: str, channels: int) -> None:
    config = ClassifierConfig(network=network, channels=8)
    built = build_judge_network(channels, 16, 7, config).eval()
    images = torch.randint(0, 256, (3, channels, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        assert built.features(images).shape == (3, 32)
        assert built(images).shape == (3, 7)


def test_airbench_refuses_images_that_leave_nothing_to_pool() -> None:
    with pytest.raises(SettingsError, match=r"at least 16 px; these have 15: set it to residual"):
        build_judge_network(3, 15, 10, AIRBENCH)
