"""The training and the test images of a run, from their sources."""

import logging

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import (
    ImageSet,
    ImageSource,
    align_classes,
    read_images,
    split_held_out,
    take_stratified,
)

logger = logging.getLogger(__name__)


def read_splits(
    train_source: ImageSource, test_source: ImageSource | None, config: ImagesConfig
) -> tuple[ImageSet, ImageSet]:
    """Return training and test images; raises DataError if ``config`` or the splits do not fit."""
    train = read_images(train_source, config)
    if test_source is None:
        train, test = split_held_out(train, config.test_fraction, config.seed)
    else:
        test = read_images(test_source, config, keep_empty_classes=True)
        if test.images.shape[1:] != train.images.shape[1:]:
            raise DataError(
                f"training images are {train.images.shape[1:]} and test images "
                f"{test.images.shape[1:]} (channels, height, width); set images.image_size and "
                "images.channels to make them equal"
            )
        if train.labels is not None and test.labels is not None:
            test = align_classes(test, train.class_names)
    if config.max_train_images is not None and config.max_train_images < train.num_images:
        train = take_stratified(train, config.max_train_images, config.seed)
    if config.max_test_images is not None and config.max_test_images < test.num_images:
        test = take_stratified(test, config.max_test_images, config.seed)
    logger.info("%s training and %s test images", train.num_images, test.num_images)
    return train, test
