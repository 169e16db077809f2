from itertools import islice

import torch

from phoenix_pipeline.seeding import derive_seed, image_seeds

COUNT = 50_000


def test_images_have_seeds_that_a_generator_can_tell_apart() -> None:
    seeds = list(image_seeds(1, "sample", COUNT))
    assert len({seed % 2**32 for seed in seeds}) == COUNT


def test_seeds_that_torch_takes_for_one_are_parted_and_no_others_move() -> None:
    """Both pairs of run seed 1 drew the same image twice."""
    alone = [derive_seed(1, "sample", i) for i in range(COUNT)]
    for first, second in ((6187, 38634), (30927, 40566)):
        draws = [torch.Generator().manual_seed(alone[i]) for i in (first, second)]
        assert torch.equal(*(torch.randn(9, generator=g) for g in draws))
    seeds = list(image_seeds(1, "sample", COUNT))
    moved = [i for i in range(COUNT) if seeds[i] != alone[i]]
    assert moved == [38634, 40566]


def test_a_seed_does_not_depend_on_how_many_there_are() -> None:
    seeds = list(image_seeds(1, "sample", COUNT))
    assert list(image_seeds(1, "sample", 39_000)) == seeds[:39_000]
    assert list(islice(image_seeds(7, "monitor", 64, 3, 2), 2)) == [
        derive_seed(7, "monitor", 3, 2, 0),
        derive_seed(7, "monitor", 3, 2, 1),
    ]
