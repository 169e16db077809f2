"""What a trained arm says of itself: its settings and its data as they were in training.

All of it lies in ``phoenix.json`` beside the model. Whoever describes or attacks the model reads it
there: the parameters of today's command may be others.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from phoenix_pipeline.errors import CheckpointError, DataError
from phoenix_pipeline.images import ImageSet

TRAINED_WITH = "trained_with"
DATA = "data"
_TRAIN, _TEST, _CLIENTS = "train_images", "test_images", "client_images"


def trained_with(metadata: Mapping[str, Any], arm: str) -> dict[str, dict[str, Any]]:
    """Return the complete parameter groups that an arm was trained with, by their names.

    ``metadata``: the content of its ``phoenix.json``.

    Raises:
        CheckpointError: a version that did not write them made the model.
    """
    if TRAINED_WITH not in metadata:
        raise CheckpointError(
            f"the model of {arm} does not say what it was trained with: an earlier version of this "
            f"project made it; train it again: kedro run --pipelines {arm}"
        )
    settings: dict[str, dict[str, Any]] = metadata[TRAINED_WITH]
    return settings


def fingerprint_data(train: ImageSet, test: ImageSet, clients: pd.DataFrame) -> dict[str, str]:
    """Return a digest each of the training images, the held-out ones, and who trained on what.

    ``clients``: client_id and image_index, a row for each image of each client.
    """
    rows = clients.reindex(columns=["client_id", "image_index"]).to_numpy("int64")
    table = np.ascontiguousarray(rows)
    return {
        _TRAIN: train.fingerprint()[:16],
        _TEST: test.fingerprint()[:16],
        _CLIENTS: hashlib.sha256(table.tobytes()).hexdigest()[:16],
    }


def check_data(
    metadata: Mapping[str, Any], train: ImageSet, test: ImageSet, clients: pd.DataFrame
) -> None:
    """Refuse images, or a table of who holds them, that are not those of the training.

    Raises:
        DataError: names which of them changed, and the way back.
    """
    found, known = fingerprint_data(train, test, clients), metadata[DATA]
    changed = [name for name in found if found[name] != known[name]]
    if changed:
        raise DataError(
            f"{' and '.join(changed)} changed since the model was trained; make them again with "
            "the settings of the training (they are in the model's phoenix.json), or train anew"
        )
