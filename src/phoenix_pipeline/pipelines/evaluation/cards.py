"""The cards of an arm's model and samples, once there are scores to write on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from phoenix_pipeline.reporting.cards import (
    render_model_card,
    render_outdated_card,
    render_sample_card,
)


def write_cards(
    model_folder: Path, samples_file: Path, metrics: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the texts of the model's and of the samples' README.md.

    They say what the model's folder and the scores say, whatever this command's settings are.
    Scores of an earlier model are left out.
    """
    from phoenix_pipeline.families.model_folder import read_metadata

    description = read_metadata(model_folder)
    if metrics["conditions"]["weights_digest"] != description["weights_digest"]:
        return render_model_card(description), render_outdated_card(description["arm"])
    num_images = pq.read_metadata(samples_file).num_rows
    samples = render_sample_card(description, metrics, num_images)
    return render_model_card(description, metrics), samples
