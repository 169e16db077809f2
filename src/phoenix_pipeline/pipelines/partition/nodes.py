"""Decode the raw images once and divide them among the clients."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from phoenix_pipeline.arms.splits import read_splits
from phoenix_pipeline.config import ArmSettings, ImagesConfig, PartitionConfig, RunConfig
from phoenix_pipeline.framework.image_datasets import ImageSplits
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.partitioning.clients import partition_clients
from phoenix_pipeline.reporting.figure_style import draw_sentence
from phoenix_pipeline.reporting.partition_figure import THE_SITES_ARE_THE_CLIENTS, draw_partition


def decode_images(raw_images: ImageSplits, config: ImagesConfig) -> tuple[ImageSet, ImageSet]:
    """Return the training and test images; raises DataError when the splits do not fit."""
    return read_splits(raw_images.train, raw_images.test, config)


def partition_images(train: ImageSet, config: PartitionConfig, run: RunConfig) -> pd.DataFrame:
    """Return which client holds which image: client_id, image_index, label."""
    return partition_clients(train.labels, train.num_images, config, run.seed)


def plot_partition(partition: pd.DataFrame, train: ImageSet, parameters: dict[str, Any]) -> Figure:
    """Draw classes x clients; a sentence where all clients are sites, whose images nobody sees."""
    arms = (ArmSettings.model_validate(parameters[name]) for name in parameters["arms"])
    engines = {arm.federation.engine for arm in arms if not arm.federation.pooled}
    if engines == {"deployment"}:
        return draw_sentence(THE_SITES_ARE_THE_CLIENTS)
    return draw_partition(partition, train.class_names)
