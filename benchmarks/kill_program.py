"""What the kill harness kills: three arms through the stages' own functions, on a few images."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.arms.training import train_arm
from phoenix_pipeline.config import (
    ArmSettings,
    CompressionConfig,
    FederationConfig,
    ImagesConfig,
    LocalWorkConfig,
    ModelConfig,
    PartitionConfig,
    PersonalLayersConfig,
    RunConfig,
    SamplingConfig,
    SharedPoolConfig,
    ThresholdFilterConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.run_state import RunState
from phoenix_pipeline.federated.strategy import PhoenixStrategy
from phoenix_pipeline.framework.datasets import FolderDataset, WrittenByNodeDataset, file_of
from phoenix_pipeline.images import ImageSet, read_samples
from phoenix_pipeline.json_files import write_json
from phoenix_pipeline.metrics.monitoring import build_monitor_reference, monitor_score
from phoenix_pipeline.pipelines.sampling import nodes as sampling_nodes
from phoenix_pipeline.pipelines.sampling.nodes import draw_samples

ARMS = ("fedavg", "personalization", "compressed")
CLOCKS = ("seconds",)
PHASES = (
    "between the stages",
    "local training",
    "aggregation",
    "writing a client's state",
    "writing a checkpoint",
    "writing the models",
    "sampling",
    "evaluation",
)
_SIZES = (12, 18, 24, 12)
_UNET = UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
_MODEL = ModelConfig(unet=_UNET)
_RUN = RunConfig(seed=3, device="cpu")
_SAMPLING = SamplingConfig(num_images=24, batch_size=6, num_steps=2)
_RULES = ThresholdFilterConfig(
    monitor_every=1, monitor_samples=16, monitor_steps=2, absolute_threshold=1.0001, patience=2
)
# Arrays of their own at the server, in the messages and at the clients.
_STRATEGIES: dict[str, dict[str, Any]] = {"scaffold": {}, "feddyn": {}, "alignment": {}}
# Memory on both sides: residuals at the clients, the last broadcast at both.
_COMPRESSION = CompressionConfig(
    up={"codec": "top_k", "density": 0.1}, down={"codec": "int8", "relative_to": "last_broadcast"}
)


def import_all() -> None:
    """Import what the program would import late, so that forked processes need not."""
    import sklearn.cluster
    import sklearn.covariance  # noqa: F401
    from diffusers import DDPMPipeline  # noqa: F401

    build_unet(_UNET, 1, 8, 0)


def run_arms(folder: Path, arms: Sequence[str]) -> None:
    """Run the program: the same command before and after a kill."""
    for arm in arms:
        _run_arm(arm, folder)


def watch_phases(enter: Callable[[int], int]) -> None:
    """Have ``enter(phase)`` called where this process begins a phase; it returns the one before."""
    sampling_nodes.BETWEEN_PARTS_S = 0.0
    for owner, name, phase in (
        (DiffusionFamily, "train_locally", 1),
        (PhoenixStrategy, "_read", 2),
        (ClientStates, "save", 3),
        (RunState, "save", 4),
        (FolderDataset, "save", 5),
        (WrittenByNodeDataset, "save", 6),
    ):
        setattr(owner, name, _told(getattr(owner, name), phase, enter))
    globals()["_evaluate"] = _told(_evaluate, 7, enter)


def _told(function: Callable[..., Any], phase: int, enter: Callable[[int], int]) -> Any:
    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        before = enter(phase)
        try:
            return function(*arguments, **options)
        finally:
            enter(before)

    return wrapped


def _run_arm(arm: str, folder: Path) -> None:
    personal = arm == "personalization"
    checkpoints = folder / "checkpoints" / arm
    settings = ArmSettings(
        model=_MODEL,
        training=TrainingConfig(batch_size=6, ema_horizon=0.5, optimizer_state="keep"),
        federation=FederationConfig(
            num_rounds=4,
            local_work=LocalWorkConfig(unit="steps", amount=2),
            client_fraction=1.0 if personal else 0.5,
            workers=2,
            threads_per_client=1,
            compression=_COMPRESSION if arm == "compressed" else CompressionConfig(),
            strategies=_STRATEGIES if arm == "compressed" else {},
        ),
        personal_layers=PersonalLayersConfig(
            layers=("conv_norm_out", "conv_out") if personal else None, final_average=personal
        ),
        threshold_filter=_RULES.model_copy(update={"enabled": personal}),
        shared_pool=SharedPoolConfig(beta=0.2, warmup_steps=2 if personal else 0),
        sampling=_SAMPLING,
    )
    pool = pd.DataFrame({"image_index": np.arange(5, 25)})
    groups = {"images": ImagesConfig(), "partition": PartitionConfig(num_clients=len(_SIZES))}
    images, held_out = _images(sum(_SIZES)), _images(60)
    trained = train_arm(
        arm, images, held_out, _clients(), pool, settings, _RUN, checkpoints, groups
    )
    FolderDataset(filepath=str(folder / arm)).save(trained.write)
    file_of(folder / arm / "rounds.parquet").save(trained.rounds)
    held = file_of(folder / arm / "client_images.parquet")
    held.save(trained.trained_images)
    samples = WrittenByNodeDataset(filepath=str(folder / f"{arm}.parquet"))
    samples.save(draw_samples(folder / arm, settings, _RUN))
    _evaluate(folder, arm)


def _evaluate(folder: Path, arm: str) -> None:
    reference = build_monitor_reference(_images(60), _RUN.seed)
    images = read_samples(folder / f"{arm}.parquet").images.images
    write_json(folder / f"{arm}.json", {"score": monitor_score(images, reference)})


def _images(count: int) -> ImageSet:
    return ImageSet(np.random.default_rng(3).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8))


def _clients() -> pd.DataFrame:
    owners = np.repeat(np.arange(len(_SIZES)), _SIZES)
    return pd.DataFrame({"client_id": owners, "image_index": np.arange(sum(_SIZES))})
