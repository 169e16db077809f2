"""Decide what each client trains on, and refuse settings that cannot work before any training."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from phoenix_pipeline.config import ArmSettings
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.reporting.figure_style import draw_sentence
from phoenix_pipeline.reporting.partition_figure import (
    THE_SITES_ARE_THE_CLIENTS,
    draw_client_images,
)


def name_folder(arm: str) -> Callable[[Path], Path]:
    """Return the node that names the folder of ``arm`` among those of all arms."""

    def find_checkpoints(all_checkpoints: Path) -> Path:
        """Name the folder of this arm's checkpoints."""
        return all_checkpoints / arm

    return find_checkpoints


def plot_clients(train: ImageSet, client_images: pd.DataFrame, arm: ArmSettings) -> Figure:
    """Draw what each client trains on: its own images, and those that it received."""
    if arm.federation.engine == "deployment":
        return draw_sentence(THE_SITES_ARE_THE_CLIENTS)
    return draw_client_images(client_images, train.class_names)
