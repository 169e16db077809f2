"""Train one arm and export its model in the diffusers layout."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline import __version__
from phoenix_pipeline.config import (
    FederationConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    TrainingConfig,
)
from phoenix_pipeline.framework.tracking import round_logger
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.pipelines.progress import progress_bar


def train(
    train_images: ImageSet,
    client_images: pd.DataFrame,
    model_summary: dict[str, int],
    model: ModelConfig,
    training: TrainingConfig,
    federation: FederationConfig,
    sampling: SamplingConfig,
    run: RunConfig,
    checkpoints: Path,
) -> tuple[Callable[[Path], None], pd.DataFrame]:
    """Return a function that writes the model into a folder, and the table of rounds."""
    from phoenix_pipeline.federated.records import ClientSettings
    from phoenix_pipeline.federated.server import train_federated

    settings = ClientSettings(
        model=model,
        training=training,
        channels=model_summary["channels"],
        image_size=model_summary["image_size"],
        seed=run.seed,
    )
    clients = client_images["client_id"].nunique()
    with progress_bar("training", federation.num_rounds * clients) as advance:
        result = train_federated(
            train_images,
            client_images,
            federation,
            settings,
            run.device,
            checkpoints,
            on_round=round_logger(),
            on_reply=lambda server_round, row: advance(1),
        )
    use_ema = sampling.weights == "ema" and training.ema_horizon > 0
    metadata: dict[str, Any] = {
        "weights": "ema" if use_ema else "raw",
        "rounds": federation.num_rounds,
        "settings": settings.model_dump(mode="json"),
        "phoenix_pipeline": __version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }

    def write_model(folder: Path) -> None:
        from phoenix_pipeline.checkpoints import save_tensors
        from phoenix_pipeline.diffusion.export import export_pipeline
        from phoenix_pipeline.diffusion.unet import build_unet

        unet = build_unet(model.unet, settings.channels, settings.image_size, run.seed)
        unet.load_state_dict(result.ema if use_ema else result.raw)
        export_pipeline(folder, unet, model.noise, metadata)
        save_tensors(folder / "raw_weights.safetensors", result.raw, {"weights": "raw"})

    return write_model, result.rounds
