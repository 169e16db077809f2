"""Which images a run uses."""

from pathlib import Path

import numpy as np

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.framework.image_datasets import ImageSplits
from phoenix_pipeline.images import ImageSet, find_image_source
from phoenix_pipeline.pipelines.partition.nodes import decode_images

DIGITS = Path(__file__).parents[2] / "data/01_raw/digits/test.parquet"


def decode(**options: int) -> tuple[ImageSet, ImageSet]:
    splits = ImageSplits(find_image_source(DIGITS), None)
    return decode_images(splits, ImagesConfig(max_train_images=50, **options))


def test_the_split_and_the_subset_follow_their_own_seed() -> None:
    train, test = decode()
    again, held_out = decode(seed=0)
    assert (train.num_images, test.num_images) == (50, 72)
    assert np.array_equal(train.images, again.images)
    assert np.array_equal(test.images, held_out.images)
    other, other_held_out = decode(seed=1)
    assert not np.array_equal(train.images, other.images)
    assert not np.array_equal(test.images, other_held_out.images)
    assert np.array_equal(np.bincount(other.labels), np.bincount(train.labels))
