"""A trained arm as an MLflow model: ``mlflow.pyfunc.load_model("runs:/<run>/model")`` draws images.

The model is the arm's folder as it is, safetensors and JSON, with an ``MLmodel`` file beside them
that names this module as its loader. No object is pickled, and none is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoenix_pipeline.config import SamplingConfig
from phoenix_pipeline.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FILE = "MLmodel"
_SAMPLING = "phoenix_sampling"


def describe_mlmodel(folder: Path, run_id: str, artifact: str, sampling: Mapping[str, Any]) -> str:
    """Return the text of ``MLmodel`` for an arm's folder that is logged as ``artifact``."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types.schema import ColSpec, Schema, TensorSpec

    from phoenix_pipeline.families.model_folder import read_description

    settings = read_description(folder)["settings"]
    side = settings["image_size"]
    images = TensorSpec(np.dtype("uint8"), (-1, settings["channels"], side, side), "images")
    # Of a conditional model a row may name the one class that it is to draw.
    label = [ColSpec("long", "label", required=False)] if settings["class_names"] else []
    model = Model(
        artifact_path=artifact,
        run_id=run_id,
        signature=ModelSignature(
            inputs=Schema([ColSpec("long", "count"), ColSpec("long", "seed"), *label]),
            outputs=Schema([images]),
        ),
        metadata={_SAMPLING: dict(sampling)},
    )
    add_to_model(model, loader_module=__name__)
    return str(model.to_yaml())


class ImageModel:
    """What MLflow calls: a row of ``count`` and ``seed`` gives that many images.

    With a column ``label`` a conditional model draws that class alone.
    """

    def __init__(self, folder: Path, sampling: SamplingConfig) -> None:
        self._folder, self._sampling = folder, sampling

    def predict(self, model_input: "pd.DataFrame", params: object = None) -> "np.ndarray":
        """Return uint8 images [N, C, H, W], the rows' one after another.

        They are those that ``kedro export-samples --seed`` draws. Raises SettingsError for a count
        below 1, a seed below 0, or a label outside the classes.
        """
        import numpy as np
        import pandas as pd

        from phoenix_pipeline.arms.sampling import draw_images

        given = model_input.assign(label=model_input.get("label"))
        rows = [
            (int(row["count"]), int(row["seed"]), None if pd.isna(row["label"]) else [row["label"]])
            for _, row in given.iterrows()
        ]
        for count, seed, _ in rows:
            if count < 1 or seed < 0:
                raise SettingsError(
                    f"got count {count} and seed {seed}; count must be 1 or more, seed 0 or more"
                )
        images = [
            draw_images(
                self._folder,
                count,
                self._sampling,
                seed,
                labels=asked and asked * count,
                role="export",
            )
            for count, seed, asked in rows
        ]
        return np.concatenate(images)


def _load_pyfunc(path: str) -> ImageModel:
    """Return the model in ``path``; MLflow looks for this name."""
    from mlflow.models import Model

    metadata = Model.load(path).metadata or {}
    return ImageModel(Path(path), SamplingConfig.model_validate(metadata.get(_SAMPLING, {})))
