"""Augmentation moves and mirrors images, and nothing else."""

import torch

from phoenix_pipeline.metrics.judge_training import augment, cut_out

ROW = torch.arange(16, dtype=torch.uint8)
GRADIENT = ROW.expand(200, 1, 16, 16)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_shifts_by_up_to_an_eighth_and_repeats_the_edge():
    shifted = augment(GRADIENT, horizontal_flip=False, generator=generator())
    allowed = {tuple((ROW.int() + shift).clamp(0, 15).tolist()) for shift in range(-2, 3)}
    assert {tuple(row.tolist()) for row in shifted.flatten(0, 2)} == allowed
    vertical = augment(GRADIENT.mT, horizontal_flip=False, generator=generator()).mT
    assert {tuple(row.tolist()) for row in vertical.flatten(0, 2)} == allowed


def test_mirrors_about_half():
    views = augment(GRADIENT, horizontal_flip=True, generator=generator())
    mirrored = (views[:, 0, 0, 0] > views[:, 0, 0, -1]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_channels_and_rows_move_together():
    image = torch.stack([GRADIENT[0, 0], GRADIENT[0, 0] + 100, GRADIENT[0, 0] + 200])
    views = augment(image.expand(50, -1, -1, -1), horizontal_flip=True, generator=generator())
    assert torch.equal(views[:, 1] - views[:, 0], torch.full_like(views[:, 0], 100))
    assert torch.equal(views[:, :, 0], views[:, :, -1])


def test_a_grey_square_lies_anywhere_and_in_all_channels():
    images = torch.zeros(300, 3, 16, 16, dtype=torch.uint8)
    grey = cut_out(images, 0.25, generator()) == 128
    assert torch.equal(grey[:, 0], grey[:, 2])
    heights, widths = grey[:, 0].any(2).sum(1), grey[:, 0].any(1).sum(1)
    assert torch.equal(grey[:, 0].sum((1, 2)), heights * widths)
    assert (heights.min(), heights.max()) == (2, 4)
    assert (heights == 4).float().mean() > 0.7
    assert grey[:, 0].any(0).all()
    assert not images.any()
