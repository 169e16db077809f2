"""Apportionment, stratified subsets and the held-out split."""

import numpy as np
import pytest

from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.images import ImageSet, apportion, split_held_out, take_stratified


def make_set(*sizes: int) -> ImageSet:
    """Make images whose first pixels hold their own index."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = np.zeros((len(labels), 1, 8, 8), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(len(labels)), 256)
    return ImageSet(images, labels, tuple("abcdefgh"[: len(sizes)]))


def indices(images: ImageSet) -> list[int]:
    high, low = images.images[:, 0, 0, 0].astype(int), images.images[:, 0, 0, 1]
    return (256 * high + low).tolist()


@pytest.mark.parametrize(
    ("weights", "total", "bounds", "expected"),
    [
        ([2, 3, 5], 20, {}, [4, 6, 10]),
        ([1, 1, 1], 5, {}, [2, 2, 1]),
        # Webster 1832 on a textbook case: quotas 5.3, 3.0 (rounded: 5, 3), 1.7 (2).
        ([53, 30, 17], 10, {}, [5, 3, 2]),
        ([1, 1, 1], 9, {"upper": [1, 9, 9]}, [1, 4, 4]),
        ([98, 1, 1], 10, {"lower": [1, 1, 1]}, [8, 1, 1]),
        ([0, 1], 3, {}, [0, 3]),
        # The fourth of the second has quotient 10 / 7, below the third of the first, 10 / 5.
        ([10, 10], 6, {"lower": [0, 3]}, [3, 3]),
    ],
)
def test_apportion_hand_computed(weights, total, bounds, expected):
    assert apportion(weights, total, **bounds).tolist() == expected


def test_apportion_refuses_bounds_without_solution():
    with pytest.raises(ValueError, match="do not fit"):
        apportion([1, 1], 5, upper=[2, 2])
    with pytest.raises(ValueError, match="do not fit"):
        apportion([1, 1], 1, lower=[1, 1])


def test_take_stratified_keeps_proportions_order_and_every_class():
    images = make_set(60, 36, 4)
    taken = take_stratified(images, 25, seed=3)
    assert np.bincount(taken.labels).tolist() == [15, 9, 1]
    assert indices(taken) == sorted(set(indices(taken)))
    assert indices(taken) == indices(take_stratified(images, 25, seed=3))
    assert indices(taken) != indices(take_stratified(images, 25, seed=4))
    assert np.bincount(take_stratified(images, 3, seed=0).labels).tolist() == [1, 1, 1]
    assert take_stratified(images, 100, seed=0) is images


def test_split_held_out_leaves_an_image_of_each_class_and_rounds_no_rounding_error_up():
    kept, held_out = split_held_out(make_set(2, 98), 0.98, seed=0)
    assert np.bincount(kept.labels).tolist() == [1, 1]
    assert np.bincount(held_out.labels).tolist() == [1, 97]
    # 0.07 x 100 is 7.000000000000001 in floating point.
    assert split_held_out(make_set(40, 60), 0.07, seed=0)[1].num_images == 7


def test_split_held_out_is_a_stratified_partition():
    images = make_set(50, 30, 2)
    kept, held_out = split_held_out(images, 0.2, seed=0)
    assert sorted(indices(kept) + indices(held_out)) == list(range(82))
    assert held_out.num_images == 17  # ceil(0.2 x 82)
    assert np.bincount(held_out.labels).tolist() == [10, 6, 1]
    assert indices(held_out) == indices(split_held_out(images, 0.2, seed=0)[1])
    assert indices(held_out) != indices(split_held_out(images, 0.2, seed=1)[1])


def test_split_rounds_up_without_floating_point_surplus():
    assert split_held_out(make_set(30), 0.1, seed=0)[1].num_images == 3


def test_unlabelled_images_are_split_at_random():
    images = ImageSet(make_set(40).images)
    kept, held_out = split_held_out(images, 0.25, seed=0)
    assert (kept.num_images, held_out.num_images, held_out.labels) == (30, 10, None)
    assert indices(held_out) != list(range(10))
    assert take_stratified(images, 7, seed=0).num_images == 7


def test_impossible_requests():
    with pytest.raises(SettingsError, match=r"2 images of 3 classes .* at least 3"):
        take_stratified(make_set(5, 5, 5), 2, seed=0)
    with pytest.raises(SettingsError, match=r"holds out 1 of 15 .* 3 to 12 are possible"):
        split_held_out(make_set(5, 5, 5), 0.05, seed=0)
    with pytest.raises(DataError, match=r"class 'b' has one image.* name the test images"):
        split_held_out(make_set(5, 1), 0.5, seed=0)
