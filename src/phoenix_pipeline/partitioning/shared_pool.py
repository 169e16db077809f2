"""Data Sharing Strategy: a pool of beta x all client images, of which each client gets alpha.

After Zhao et al., arXiv 1806.00582, as used for diffusion models in arXiv 2306.04098.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from phoenix_pipeline.config import SharedPoolConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import apportion
from phoenix_pipeline.seeding import numpy_generator

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SharedPool:
    """The pool, who receives which of it, and what everyone trains on.

    ``pool``: int64 image indices, sorted. ``shares``: client_id, image_index. ``training``:
    client_id, image_index, label, shared (True where the client has the image from the pool only),
    sorted by client and then image; no image twice at one client.
    """

    pool: np.ndarray
    shares: pd.DataFrame
    training: pd.DataFrame


def draw_shared_pool(
    partition: pd.DataFrame, config: SharedPoolConfig, seed: int, num_classes: int
) -> SharedPool:
    """Draw the pool and each client's round(alpha x pool) of it.

    The pool has beta times as many images as the clients hold beside it, as Zhao et al. define
    beta: of N images round(beta N) where owners keep their copies, round(beta / (1 + beta) N) where
    pool images leave them.
    ``class_balanced``: equal numbers per class; a class that is too small gives all it has and the
    others fill up evenly, the first ones taking what does not divide; without labels the pool is
    drawn at random. With ``held_out``, or without
    ``keep_private_copy``, pool images leave their owners. Draws nest: a larger beta or alpha adds
    images and keeps the others (where the whole pool stays the same). beta = 0 changes nothing;
    alpha = 0 gives clients nothing, for a pool that is only warmed up on.
    Raises SettingsError, saying what would be possible, for a pool that is too small.
    """
    if config.beta and config.class_balanced and (partition["label"] < 0).any():
        logger.info("the images have no labels: the shared pool is drawn without balancing classes")
        config = config.model_copy(update={"class_balanced": False})
    beta = config.beta / (1.0 + config.beta) if _leaves_owners(config) else config.beta
    size = round(beta * len(partition))
    _check_size(partition, config, size, num_classes)
    pool = _draw_pool(partition, config, size, seed)
    clients = np.unique(partition["client_id"])
    amount = round(config.alpha * size)
    shares = pd.DataFrame(
        {
            "client_id": np.repeat(clients, amount).astype(np.int32),
            "image_index": np.concatenate([_share(pool, amount, seed, c) for c in clients]),
        }
    )
    training = _training_table(partition, config, pool, shares)
    _refuse_idle(np.setdiff1d(clients, training["client_id"]), config)
    return SharedPool(np.sort(pool), shares, training)


def _refuse_idle(clients: np.ndarray, config: SharedPoolConfig) -> None:
    if len(clients) == 0:
        return
    of_clients = config.source == "clients"
    keep = "keep_private_copy: true" if of_clients else "source: clients"
    raise SettingsError(
        f"client {clients[0]} would have nothing to train on after its images left for the "
        f"pool; raise shared_pool.alpha ({config.alpha:g}), lower shared_pool.beta "
        f"({config.beta:g}) or set shared_pool.{keep}"
    )


def _leaves_owners(config: SharedPoolConfig) -> bool:
    return config.source == "held_out" or not config.keep_private_copy


def _check_size(
    partition: pd.DataFrame, config: SharedPoolConfig, size: int, num_classes: int
) -> None:
    if config.beta == 0:
        return
    images = len(partition)
    needed = num_classes if config.class_balanced else 1
    if size < needed:
        kept = images - needed if _leaves_owners(config) else images
        kind = f", fewer than one of each of {num_classes} classes" if config.class_balanced else ""
        raise SettingsError(
            f"shared_pool.beta {config.beta:g} of {images} images gives a pool of {size}{kind}; "
            f"possible is shared_pool.beta from {_ceil(needed / kept)}"
        )
    if config.alpha > 0 and round(config.alpha * size) == 0:
        raise SettingsError(
            f"shared_pool.alpha {config.alpha:g} of a pool of {size} images gives no client any; "
            f"possible is shared_pool.alpha from {_ceil(1 / size)} or a larger beta"
        )


def _ceil(fraction: float) -> str:
    """Format upwards, so that what the message names is really enough."""
    return f"{math.ceil(fraction * 1e4) / 1e4:g}"


def _draw_pool(
    partition: pd.DataFrame, config: SharedPoolConfig, size: int, seed: int
) -> np.ndarray:
    images = partition["image_index"].to_numpy()
    if not config.class_balanced:
        order = np.sort(images)
        return numpy_generator(seed, "shared_pool").permutation(order)[:size]
    labels = partition["label"].to_numpy()
    classes, available = np.unique(labels, return_counts=True)
    counts = apportion(np.ones(len(classes)), size, upper=available)
    drawn = [
        numpy_generator(seed, "shared_pool", int(label)).permutation(
            np.sort(images[labels == label])
        )[:count]
        for label, count in zip(classes, counts, strict=True)
    ]
    return np.concatenate(drawn)


def _share(pool: np.ndarray, amount: int, seed: int, client: int) -> np.ndarray:
    order = numpy_generator(seed, "shared_pool_share", int(client)).permutation(np.sort(pool))
    return np.sort(order[:amount]).astype(np.int64)


def _training_table(
    partition: pd.DataFrame, config: SharedPoolConfig, pool: np.ndarray, shares: pd.DataFrame
) -> pd.DataFrame:
    """Join private and received images; an image that a client still owns counts as private."""
    private = partition
    if _leaves_owners(config):
        private = partition[~partition["image_index"].isin(pool)]
    labels = partition.set_index("image_index")["label"]
    received = shares.assign(label=labels.loc[shares["image_index"]].to_numpy(), shared=True)
    joined = pd.concat([private.assign(shared=False), received], ignore_index=True)
    unique = joined.drop_duplicates(["client_id", "image_index"], keep="first")
    ordered = unique.sort_values(["client_id", "image_index"], ignore_index=True)
    types = {"client_id": np.int32, "image_index": np.int64, "label": np.int64, "shared": bool}
    return ordered.astype(types)[list(types)]
