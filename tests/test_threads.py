"""A batch divided among threads gives the images of an undivided one."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from phoenix_pipeline.config import NoiseConfig, SamplingConfig, UNetConfig
from phoenix_pipeline.diffusion.sampling import sample_images
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor, extract_features
from phoenix_pipeline.threads import side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def unet() -> nn.Module:
    config = UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
    return build_unet(config, channels=1, image_size=8, seed=0)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_parts_come_in_order_and_each_has_one_thread() -> None:
    seen: list[tuple[int, int]] = []

    def draw(seeds: Sequence[int]) -> np.ndarray:
        seen.append((len(seeds), torch.get_num_threads()))
        return np.array(seeds)

    with side_by_side(draw, CPU) as divided:
        assert divided(range(25)).tolist() == list(range(25))
        assert sorted(seen) == [(8, 1), (8, 1), (9, 1)]
        # Too few to be worth dividing: drawn here, with all threads.
        assert divided(range(15)).tolist() == list(range(15))
        assert seen[-1] == (15, 3)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver++", "unipc"])
def test_threads_do_not_change_the_images(unet: nn.Module, sampler: str) -> None:
    config = SamplingConfig.model_validate(
        {"sampler": sampler, "num_steps": 4, "eta": 1.0, "batch_size": 24}
    )

    def draw() -> np.ndarray:
        return next(sample_images(unet, NoiseConfig(), config, (1, 8, 8), range(24), CPU))

    divided = draw()
    torch.set_num_threads(1)
    np.testing.assert_array_equal(divided, draw())


@pytest.mark.usefixtures("three_threads")
def test_a_fault_in_a_thread_reaches_the_caller(unet: nn.Module) -> None:
    with torch.no_grad():
        unet.conv_out.bias.fill_(float("nan"))
    config = SamplingConfig(num_steps=2)
    batches = sample_images(unet, NoiseConfig(), config, (1, 8, 8), range(24), CPU)
    with pytest.raises(TrainingError, match="not finite"):
        next(batches)
    assert unet.training
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_threads_do_not_change_the_order_of_features() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 1, 4, 4), dtype=np.uint8)
    extractor = FeatureExtractor(
        "sums", 1, "none", "0", CPU, lambda x: x.float().sum(dim=(2, 3)), largest_batch=8
    )
    done: list[int] = []
    features = extract_features(extractor, images, batch_size=64, progress=done.append)
    np.testing.assert_array_equal(features[:, 0], images.sum(axis=(1, 2, 3)))
    assert done == [24, 24, 22]
