"""Decode the raw images once and divide them among the clients."""

import logging

import pandas as pd
from matplotlib.figure import Figure

from phoenix_pipeline.config import ImagesConfig, PartitionConfig, RunConfig
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.framework.image_datasets import ImageSplits
from phoenix_pipeline.images import (
    ImageSet,
    align_classes,
    read_images,
    split_held_out,
    take_stratified,
)
from phoenix_pipeline.partitioning.clients import partition_clients
from phoenix_pipeline.reporting.partition_figure import draw_partition

logger = logging.getLogger(__name__)


def decode_images(raw_images: ImageSplits, config: ImagesConfig) -> tuple[ImageSet, ImageSet]:
    """Return the training and test images; raises DataError when the splits do not fit."""
    train = read_images(raw_images.train, config)
    if raw_images.test is None:
        train, test = split_held_out(train, config.test_fraction, config.seed)
    else:
        test = read_images(raw_images.test, config, keep_empty_classes=True)
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


def partition_images(train: ImageSet, config: PartitionConfig, run: RunConfig) -> pd.DataFrame:
    """Return which client holds which image: client_id, image_index, label."""
    return partition_clients(train.labels, train.num_images, config, run.seed)


def plot_partition(partition: pd.DataFrame, train: ImageSet) -> Figure:
    """Draw classes x clients."""
    return draw_partition(partition, train.class_names)
