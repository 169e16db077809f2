"""The order in which images are visited."""

import pytest
import torch

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.work import LocalWork, draw_batches, prepare_batch


def draw(num_images: int, batch_size: int, steps: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(list(draw_batches(num_images, batch_size, steps, generator)))


@pytest.mark.parametrize(("num_images", "batch_size", "steps"), [(10, 4, 10), (6, 3, 4), (3, 8, 3)])
def test_all_images_come_before_any_comes_again(
    num_images: int, batch_size: int, steps: int
) -> None:
    batches = draw(num_images, batch_size, steps)
    assert batches.shape == (steps, batch_size)
    order = batches.flatten().tolist()
    for start in range(0, len(order) - num_images + 1, num_images):
        assert sorted(order[start : start + num_images]) == list(range(num_images))


def test_passes_are_reshuffled_and_decided_by_the_seed() -> None:
    first, second = draw(20, 20, 2)
    assert not torch.equal(first, second)
    assert torch.equal(draw(20, 20, 2), draw(20, 20, 2))
    assert not torch.equal(draw(20, 20, 2), draw(20, 20, 2, seed=1))


def test_progress_is_linear_within_the_round() -> None:
    work = LocalWork(steps=4, progress_start=0.5, progress_end=0.75, seed=0)
    assert [work.progress(step) for step in (0, 2, 4)] == [0.5, 0.625, 0.75]


def test_half_of_the_images_are_mirrored_left_to_right() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4).repeat(400, 1, 1, 1)
    config = TrainingConfig(horizontal_flip=True)
    batch = prepare_batch(images, config, torch.Generator().manual_seed(0))
    plain = prepare_batch(images[:1], TrainingConfig(), torch.Generator())[0]
    torch.testing.assert_close(plain, torch.arange(12).view(1, 3, 4) / 127.5 - 1)
    mirrored = plain[:, :, [3, 2, 1, 0]]
    kinds = [torch.equal(image, mirrored) for image in batch]
    assert all(kind or torch.equal(image, plain) for kind, image in zip(kinds, batch, strict=True))
    assert 160 < sum(kinds) < 240
