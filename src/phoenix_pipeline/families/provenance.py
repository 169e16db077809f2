"""What a trained arm says of itself: its settings and its data as they were in training.

All of it lies in ``phoenix.json`` beside the model. Whoever describes or attacks the model reads it
there: the parameters of today's command may be others.
"""

import hashlib
from typing import Any, Literal, NotRequired

import numpy as np
import pandas as pd
from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.images import ImageSet


class DataDigests(TypedDict):
    """16 hex digits each, of the training images, the held-out ones, and who trained on what."""

    train_images: str
    test_images: str
    client_images: str


@with_config(ConfigDict(extra="allow"))
class NetworkSettings(TypedDict):
    """What clients were told, as far as it is needed to build and read the network.

    ``model``: of a ``ModelConfig``. ``class_names``: of a conditional model, else empty.
    ``base_digest``: of the weights that adapters are on, else empty. ``latents``: of a model that
    learnt latents, those of its autoencoder, with its digest (``LatentSpace``), else None.
    """

    model: dict[str, Any]
    channels: int
    image_size: int
    seed: int
    personal_layers: list[str]
    class_names: list[str]
    base_digest: NotRequired[str]
    latents: NotRequired[dict[str, Any] | None]


class TrainingRecord(TypedDict):
    """What a training says of itself.

    ``trained_with``: the complete groups of settings, by name. ``epsilon``: None without
    differential privacy. ``num_examples``: images by client. ``class_counts``: images by client and
    class, of a conditional model where somebody knows them. ``written``: when, in ISO 8601.
    """

    arm: str
    weights: Literal["ema", "raw"]
    rounds: int
    settings: NetworkSettings
    trained_with: dict[str, dict[str, Any]]
    data: DataDigests
    epsilon: float | None
    disclosure: list[str]
    num_examples: dict[str, int]
    class_counts: NotRequired[dict[str, list[int]]]
    phoenix_pipeline: str
    written: str


@with_config(ConfigDict(extra="allow"))
class ModelDescription(TrainingRecord):
    """The content of ``phoenix.json``: of a training, and of the models that lie beside it.

    ``clients``: those with a model of their own. ``client_id``: whose model this is, if it was put
    together for one client.
    """

    clients: list[int]
    has_global_model: bool
    weights_digest: str
    client_id: NotRequired[int]


NETWORK_SETTINGS = TypeAdapter(NetworkSettings)
MODEL_DESCRIPTION = TypeAdapter(ModelDescription)


def fingerprint_data(train: ImageSet, test: ImageSet, clients: pd.DataFrame) -> DataDigests:
    """Return digests of training and held-out images, and of ``clients`` (who holds which)."""
    rows = clients.reindex(columns=["client_id", "image_index"]).to_numpy("int64")
    table = np.ascontiguousarray(rows)
    return {
        "train_images": train.fingerprint()[:16],
        "test_images": test.fingerprint()[:16],
        "client_images": hashlib.sha256(table.tobytes()).hexdigest()[:16],
    }


def check_data(known: DataDigests, train: ImageSet, test: ImageSet, clients: pd.DataFrame) -> None:
    """Raise DataError for images or holders that are not those of the training, ``known``."""
    found = fingerprint_data(train, test, clients)
    changed = [name for name, digest in found.items() if (name, digest) not in known.items()]
    if changed:
        raise DataError(
            f"{' and '.join(changed)} changed since the model was trained; make them again with "
            "the settings of the training (they are in the model's phoenix.json), or train anew"
        )
