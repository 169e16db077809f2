"""Any number of images from a trained arm, as PNGs or Parquet, with a data card beside them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from phoenix_pipeline import __version__
from phoenix_pipeline.arms.sampling import Drawing, class_names_of, plan_main_samples
from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.config import SamplingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families import find_family
from phoenix_pipeline.families.model_folder import read_description
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.images import PngFolderWriter, SampleWriter
from phoenix_pipeline.json_files import write_json
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.reporting.cards import licence_of, render_data_card

Layout = Literal["png", "parquet"]

DATA_CARD_FILE = "data_card.json"
README_FILE = "README.md"
_PARQUET_FILE = "samples.parquet"


def export_samples(
    model_folder: Path,
    target: Path,
    num_images: int,
    seed: int,
    sampling: SamplingConfig,
    *,
    device: str = "auto",
    layout: Layout = "png",
    client_id: int | None = None,
    scores: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Write ``num_images`` images and their card into a new folder; return the card.

    Image ``i`` depends on ``seed`` and ``i``, and on none of the seeds that the run's own samples
    were drawn with. The folder is complete or absent. ``num_images``: how many, from the global
    model or from the clients' in proportion to their data. ``layout``: ``png``: one file each and a
    table; ``parquet``: ``samples.parquet``. ``client_id``: draw from this client's model alone.
    ``scores``: of the arm's evaluated samples, for the card.
    Raises SettingsError: the target exists.
    Raises CheckpointError: there is no such model.
    """
    if target.exists():
        raise SettingsError(f"{target} exists and is not overwritten; name a new folder after --to")
    metadata = read_description(model_folder)
    plan = plan_main_samples(metadata, num_images, client_id)
    drawing = Drawing.of(model_folder, metadata, sampling, plan, seed, device, "export")
    card = _describe(metadata, model_folder.name, plan, seed, sampling, scores or {})
    card["licence"] = licence_of(metadata)
    card["data_files"] = None if layout == "png" else _PARQUET_FILE
    with atomic_path(target) as temporary, progress_bar("exporting", num_images) as advance:
        temporary.mkdir()
        with _writer(temporary, layout, class_names_of(metadata)) as writer:
            for batch in drawing.batches():
                writer.write(*batch)
                advance(len(batch[0]))
        write_json(temporary / DATA_CARD_FILE, card)
        (temporary / README_FILE).write_text(render_data_card(card), encoding="utf-8")
    return card


def _writer(
    folder: Path, layout: Layout, class_names: tuple[str, ...]
) -> PngFolderWriter | SampleWriter:
    if layout == "png":
        return PngFolderWriter(folder, class_names)
    return SampleWriter(folder / _PARQUET_FILE, class_names=class_names)


def _describe(
    metadata: ModelDescription,
    arm: str,
    plan: Mapping[int, int],
    seed: int,
    sampling: SamplingConfig,
    scores: Mapping[str, float],
) -> dict[str, Any]:
    settings = metadata["settings"]
    family = settings["model"]["family"]
    conditional = bool(class_names_of(metadata))
    drawn = find_family(family).describe_sampling(sampling.model_dump(mode="json"), conditional)
    return {
        "arm": arm,
        "num_images": sum(plan.values()),
        "images_per_model": {str(client): count for client, count in plan.items()},
        "channels": settings["channels"],
        "image_size": settings["image_size"],
        "seed": seed,
        "sampling": drawn,
        "model": {
            "family": family,
            "settings": settings["model"],
            "weights": metadata["weights"],
            "rounds": metadata["rounds"],
            "training_seed": settings["seed"],
            "trained": metadata["written"],
            "training_images": sum(metadata["num_examples"].values()),
            "weights_digest": metadata["weights_digest"],
            "trained_with": metadata["trained_with"],
            "data": metadata["data"],
        },
        "disclosure": metadata["disclosure"],
        "scores": dict(scores),
        "phoenix_pipeline": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
