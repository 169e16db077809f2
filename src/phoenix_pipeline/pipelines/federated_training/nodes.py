"""Train one arm and write its models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.arms.training import train_arm
from phoenix_pipeline.config import ArmSettings, ImagesConfig, PartitionConfig, RunConfig
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.framework.tracking import round_logger
from phoenix_pipeline.images import ImageSet


def train(
    train_images: ImageSet,
    test_images: ImageSet,
    client_images: pd.DataFrame,
    shared_pool: pd.DataFrame,
    model_summary: dict[str, Any],
    arm: ArmSettings,
    run: RunConfig,
    images: ImagesConfig,
    partition: PartitionConfig,
    checkpoints: Path,
) -> tuple[Callable[[Path], None], pd.DataFrame, pd.DataFrame]:
    """Return a function that writes the models, the table of rounds, and who trained on what.

    All three lie in the model's folder, which says whatever a reader may want to know of the
    training: settings, data and promise. Each round is logged to the arm's run, and so is what
    ``model_summary`` says of settings of ``auto``, by the tracker that sees it come in.
    """
    trained = train_arm(
        checkpoints.name,
        train_images,
        test_images,
        client_images,
        shared_pool,
        arm,
        run,
        checkpoints,
        {"images": images, "partition": partition},
        round_logger(),
    )
    return trained.write, trained.rounds, trained.trained_images


def describe_model(model_folder: Path) -> ModelDescription:
    """Return what the model's own folder says of its training."""
    from phoenix_pipeline.families.model_folder import read_description

    return read_description(model_folder)
