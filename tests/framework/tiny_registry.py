"""Pipelines of a few milliseconds, wired like the real ones."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.framework.arm_blocks import arm_registry
from phoenix_pipeline.framework.image_datasets import ImageSplits
from phoenix_pipeline.framework.tracking import round_logger
from phoenix_pipeline.pipelines.arm import ARM_SETTINGS


def list_images(splits: ImageSplits, run: RunConfig) -> dict[str, Any]:
    """Count files."""
    return {"seed": run.seed, "has_test": splits.test is not None}


def train(
    summary: Mapping[str, Any], arm: ArmSettings
) -> tuple[Callable[[Path], None], dict[str, Any]]:
    """Log a loss per round; a learning rate over 1 'diverges', one over 2 while it is saved."""
    log = round_logger()
    for number in range(1, arm.federation.num_rounds + 1):
        log(number, {"loss": 1.0 / number, "skipped": float("nan")})
    if 1 < arm.training.learning_rate <= 2:
        raise TrainingError("loss is nan in round 1; lower training.learning_rate")

    def write(folder: Path) -> None:
        if arm.training.learning_rate > 2:
            raise TrainingError("loss is nan while saving; lower training.learning_rate")
        (folder / "weights.txt").write_text("1")

    scores = {"fid_pixels": 2.0, "group": {"recall": 0.5}}
    return write, {"scores": scores, "conditions": {"n": 1, "train_images": "8706dc2564d4d14e"}}


def register_pipelines() -> dict[str, Pipeline]:
    """Return one pipeline per arm, the shared one and all of them."""
    shared = Pipeline(
        [node(list_images, ["raw_images", "params:run"], "summary", name="list_images")]
    )
    arm = Pipeline([node(train, ["summary", ARM_SETTINGS], ["model", "metrics"], name="train")])
    names = arm_registry.names or ()
    arms = {
        name: Pipeline(
            arm,
            namespace=name,
            inputs={"summary"},
            parameters={ARM_SETTINGS: f"params:{name}"},
            tags=f"arm.{name}",
        )
        for name in names
    }
    everything = sum(arms.values(), shared)
    return {"shared": shared, **arms, "__default__": everything}
