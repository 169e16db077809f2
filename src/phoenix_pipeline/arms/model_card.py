"""The cards of an arm's model and samples."""

from pathlib import Path

import pyarrow.parquet as pq

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.families.model_folder import read_description
from phoenix_pipeline.images import encodable
from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.reporting.cards import (
    CARD_FILE,
    render_model_card,
    render_outdated_card,
    render_sample_card,
)


def write_model_card(folder: Path) -> None:
    """Write README.md from what ``phoenix.json`` beside it says; the evaluation adds scores."""
    text = encodable(render_model_card(read_description(folder)))
    with atomic_path(folder / CARD_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_cards(model_folder: Path, samples_file: Path, metrics: ArmMetrics) -> tuple[str, str]:
    """Return the texts of the model's and of the samples' README.md.

    They say what the model's folder and the scores say, whatever this command's settings are.
    Scores of an earlier model are left out.
    """
    description = read_description(model_folder)
    if metrics["conditions"]["weights_digest"] != description["weights_digest"]:
        return render_model_card(description), render_outdated_card(description["arm"])
    num_images = pq.read_metadata(samples_file).num_rows
    samples = render_sample_card(description, metrics, num_images)
    return render_model_card(description, metrics), samples
