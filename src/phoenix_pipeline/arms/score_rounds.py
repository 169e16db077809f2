"""How an arm's samples and their scores grow over the rounds, from the weights that were kept."""

import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from phoenix_pipeline.arms.references import load_yardstick
from phoenix_pipeline.arms.sampling import plan_labels
from phoenix_pipeline.config import ArmSettings, EvaluationConfig, ModelConfig, RunConfig
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.model_folder import build_as_trained, read_description
from phoenix_pipeline.families.provenance import ModelDescription
from phoenix_pipeline.hardware import resolve_device
from phoenix_pipeline.images import GLOBAL_MODEL, ImageSet
from phoenix_pipeline.metrics.feature_extractor import extract_features
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.progress import progress_bar
from phoenix_pipeline.reporting.gallery import tile_square
from phoenix_pipeline.seeding import image_seeds

logger = logging.getLogger(__name__)

# Feature spaces whose networks are as small as the images.
CHEAP_SPACES = ("fid_pixels", "fid_classifier")
_GRID_IMAGES = 36


def score_rounds(
    checkpoints: Path,
    model_folder: Path,
    rounds: pd.DataFrame,
    train: ImageSet,
    test: ImageSet,
    judge_folder: Path,
    reference_folder: Path,
    arm: ArmSettings,
    config: EvaluationConfig,
    run: RunConfig,
) -> pd.DataFrame:
    """Return a row per kept round: work and traffic up to there, distances, and a grid as PNG.

    ``images_trained`` and ``bytes_total`` are sums over all clients and all rounds so far, a
    warm-up included. All rounds draw with the same seeds, those of the arm's samples, so grids show
    the same images as they take shape. Distances hold ``num_samples`` images against the reference
    split; fewer samples make them larger, so they compare with each other only. No rows where no
    weights were kept (``federation.snapshots``).
    Raises CheckpointError: kept weights, judge or references are broken, or made of other images.
    """
    from phoenix_pipeline.federated.round_teller import find_snapshots

    found = find_snapshots(checkpoints)
    if not found:
        if arm.federation.snapshots.every:
            logger.info("no weights were kept by round: %s", _why_none(arm))
        return pd.DataFrame()
    held = load_yardstick(train, test, judge_folder, reference_folder, config, run, CHEAP_SPACES)
    rows = []
    for number, images in _draw(found, model_folder, arm, run):
        distances = {
            extractor.name: frechet_distance(
                gaussian_statistics(extract_features(extractor, images, config.batch_size)),
                held.references[extractor.name].statistics,
            )
            for extractor in held.extractors
        }
        row = {"round": number, **_cost(rounds, number), "num_samples": len(images)}
        rows.append({**row, **distances, "grid": _png(images[:_GRID_IMAGES])})
    return pd.DataFrame(rows)


def _png(images: np.ndarray) -> bytes:
    """Return a square of uint8 [N, C, S, S] as PNG."""
    buffer = io.BytesIO()
    tile_square(images).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _why_none(arm: ArmSettings) -> str:
    if arm.personal_layers.layers:
        return "the models that are sampled are the clients' own"
    return "the arm was trained without; federation.resume=false trains it anew"


def _cost(rounds: pd.DataFrame, number: int) -> dict[str, int]:
    so_far = rounds[rounds["round"] <= number]
    sent = so_far["bytes_up"].sum() + so_far["bytes_down"].sum()
    return {"images_trained": int(so_far["images_trained"].sum()), "bytes_total": int(sent)}


def _draw(
    found: Mapping[int, Path], model_folder: Path, arm: ArmSettings, run: RunConfig
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each kept round with images of its weights, uint8 [N, C, H, W]."""
    metadata = read_description(model_folder)
    settings = metadata["settings"]
    model = ModelConfig.model_validate(settings["model"])
    shape = (settings["channels"], settings["image_size"], settings["image_size"])
    device, count = resolve_device(run.device), arm.federation.snapshots.images
    seeds = list(image_seeds(run.seed, "sample", count))
    labels = plan_labels(metadata, {GLOBAL_MODEL: count}, arm.sampling)
    with progress_bar("samples by round", len(found) * count) as advance:
        for number, file in found.items():
            network = load_snapshot(file, model_folder, metadata).to(device)
            batches = []
            for batch in family_of(model).sample_images(
                network, model, arm.sampling, shape, seeds, device, labels=labels
            ):
                batches.append(batch)
                advance(len(batch))
            yield number, np.concatenate(batches)


def load_snapshot(file: Path, model_folder: Path, metadata: ModelDescription) -> nn.Module:
    """Return the network with the kept weights; a discriminator of the clients' own is left out."""
    from phoenix_pipeline.federated.round_teller import read_snapshot

    network = build_as_trained(model_folder, metadata)
    network.load_state_dict({**network.state_dict(), **read_snapshot(file)})
    return network.eval()
