"""The card of a model's folder, where it is written without scores."""

from pathlib import Path

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.families.model_folder import read_metadata
from phoenix_pipeline.images import encodable
from phoenix_pipeline.reporting.cards import CARD_FILE, render_model_card


def write_model_card(folder: Path) -> None:
    """Write README.md from what ``phoenix.json`` beside it says; the evaluation adds scores."""
    text = encodable(render_model_card(read_metadata(folder)))
    with atomic_path(folder / CARD_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
