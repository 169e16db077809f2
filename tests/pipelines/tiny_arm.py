"""An arm of tiny clients, trained and written."""

from pathlib import Path
from typing import Any

import pandas as pd

from phoenix_pipeline.arms.training import train_arm
from phoenix_pipeline.config import ArmSettings, ImagesConfig
from tests.federated.tiny import client_table, make_images, settings
from tests.pipelines.test_check_arm import RUN

FEDERATION: dict[str, Any] = {"num_rounds": 2, "local_work": {"unit": "steps", "amount": 2}}


def write_tiny_arm(folder: Path, arm: ArmSettings, **training: Any) -> Path:
    """Train ``arm`` with the tiny settings of ``training``; return the folder that it writes."""
    own = arm.model_copy(update={"training": settings(**training).training})
    pool = pd.DataFrame({"client_id": [], "image_index": []})
    images = make_images()
    trained = train_arm(
        "fedavg", images, images, client_table().assign(label=-1), pool, own, RUN,
        folder / "checkpoints", {"images": ImagesConfig()},
    )  # fmt: skip
    trained.write(folder / "model")
    return folder / "model"
